// The console's few moving parts: the menu on phones, times, looking up, and selecting rows.
(() => {
  const menuButton = document.querySelector("#menu-button");
  menuButton?.addEventListener("click", () => {
    const open = menuButton.getAttribute("aria-expanded") !== "true";
    menuButton.setAttribute("aria-expanded", String(open));
    document.querySelector("#menu").classList.toggle("is-open", open);
  });

  // Times are in UTC until here; the title keeps that.
  const local = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
  document.querySelectorAll("time[datetime][title]").forEach((time) => {
    time.textContent = local.format(new Date(time.dateTime));
  });

  // Inputs that refer to a record: what the server suggests while one types.
  document.querySelectorAll("[data-lookup]").forEach((input) => {
    const list = document.getElementById(input.getAttribute("list"));
    let asked = "", timer;
    const suggest = async () => {
      const text = input.value.trim();
      if (!text || text === asked || [...list.options].some((option) => option.value === text)) return;
      asked = text;
      const answer = await fetch(`${input.dataset.lookup}?q=${encodeURIComponent(text.slice(0, 100))}`);
      if (!answer.ok || asked !== text) return;
      const { results } = await answer.json();
      list.replaceChildren(...results.map((one) => new Option(one.text, one.text)));
    };
    input.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(suggest, 200); });
  });

  const bar = document.querySelector("[data-selection]");
  if (!bar) return;
  const boxes = [...document.querySelectorAll("[data-select]")];
  const all = document.querySelector("[data-select-all]");
  const matching = bar.querySelector("[data-matching]");
  const show = () => {
    const count = boxes.filter((box) => box.checked).length;
    if (matching && count < boxes.length) matching.checked = false; // who takes one out does not mean all
    const chosen = matching?.checked ? "All" : count;
    bar.querySelector("[data-count-text]").textContent = chosen ? `${chosen} selected:` : "With the selected:";
    bar.querySelectorAll("button").forEach((button) => { button.disabled = !count; });
    all.checked = count > 0 && count === boxes.length;
    all.indeterminate = count > 0 && count < boxes.length;
  };
  [all, matching].forEach((one) => one?.addEventListener("change", () => {
    boxes.forEach((box) => { box.checked = one.checked; });
    show();
  }));
  boxes.forEach((box) => box.addEventListener("change", show));
  show(); // the browser may have kept the checks of an earlier visit
})();
