// Starts Swagger UI. Tokens live in the page's memory only: a reload forgets them.
"use strict";

const dark = matchMedia("(prefers-color-scheme: dark)");
const applyTheme = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.addEventListener("change", applyTheme);
applyTheme();

SwaggerUIBundle({
  url: document.getElementById("docs").dataset.openapi,
  dom_id: "#docs",
  deepLinking: true,
  displayRequestDuration: true,
  filter: true,
  persistAuthorization: false,
  // Swagger UI shows the OAuth2 error of RFC 6749, a word; ours has one shape everywhere, so the message takes its place.
  responseInterceptor: (response) => {
    const message = response.url?.endsWith("/auth/token") && response.obj?.error?.message;
    if (message) {
      response.data = response.text = JSON.stringify({ error: message });
      response.body = response.obj = { error: message };
    }
    return response;
  },
  validatorUrl: null, // its default sends the document's address to a foreign server
});
