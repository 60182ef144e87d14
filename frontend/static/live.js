// Looks again whenever the server says so, without a flicker. Without this file the page reloads itself now and then.
const place = document.getElementById("live");
const PAUSE = 10000; // milliseconds until a stream that was refused is tried again: browsers give up for good

function says(text) {
  const note = document.getElementById("stale");
  note.hidden = !text;
  note.textContent = text;
}

async function look() {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" }, cache: "no-store" }).catch(() => null);
  const page = answer && new DOMParser().parseFromString(await answer.text(), "text/html");
  const fresh = page && page.getElementById("live");
  if (!fresh) {
    says(place.dataset.stale);
    return;
  }
  says("");
  const focused = document.activeElement && place.contains(document.activeElement);
  if (focused || fresh.innerHTML === place.innerHTML) return; // nobody's keyboard loses its place
  place.replaceChildren(...fresh.childNodes);
  document.title = page.title;
}

function listen() {
  const events = new EventSource(place.dataset.live);
  events.addEventListener("look", look);
  events.onerror = () => {
    look();
    if (events.readyState === EventSource.CLOSED) setTimeout(listen, PAUSE);
  };
}

listen();
