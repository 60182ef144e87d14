// Starts ReDoc under our Content-Security-Policy.
const root = document.getElementById("docs");

// Its styles are <style> elements made at run time: give each this response's nonce.
const { createElement } = Document.prototype;
Document.prototype.createElement = function (...args) {
  const element = createElement.apply(this, args);
  if (element instanceof HTMLStyleElement) element.nonce = root.nonce;
  return element;
};

// Its badge loads an image from its maker's server: show ours. React sets the attribute, then the property.
const image = HTMLImageElement.prototype;
const src = Object.getOwnPropertyDescriptor(image, "src");
const local = (url) => (String(url).startsWith("https://cdn.redoc.ly/") ? root.dataset.badge : url);
Object.defineProperty(image, "src", { ...src, set(url) { src.set.call(this, local(url)); } });
image.setAttribute = function (name, value) {
  Element.prototype.setAttribute.call(this, name, name === "src" ? local(value) : value);
};

// Its search would set up a worker by eval; without workers it searches in the page.
window.Worker = undefined;

const { init } = await import(root.dataset.bundle);
await init(root.dataset.openapi, { disableTelemetry: true }, root);
