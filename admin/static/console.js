// The console's few moving parts: the menu on phones, and selecting rows.
(() => {
  const menuButton = document.querySelector("#menu-button");
  menuButton?.addEventListener("click", () => {
    const open = menuButton.getAttribute("aria-expanded") !== "true";
    menuButton.setAttribute("aria-expanded", String(open));
    document.querySelector("#menu").classList.toggle("is-open", open);
  });

  const bar = document.querySelector("[data-selection]");
  if (!bar) return;
  const boxes = [...document.querySelectorAll("[data-select]")];
  const all = document.querySelector("[data-select-all]");
  const matching = bar.querySelector("[data-matching]");
  const show = () => {
    const count = boxes.filter((box) => box.checked).length;
    bar.querySelector("[data-count-text]").textContent = count ? `${count} selected:` : "With the selected:";
    bar.querySelectorAll("button").forEach((button) => { button.disabled = !count && !matching?.checked; });
    all.checked = count > 0 && count === boxes.length;
    all.indeterminate = count > 0 && count < boxes.length;
  };
  all.addEventListener("change", () => {
    boxes.forEach((box) => { box.checked = all.checked; });
    show();
  });
  matching?.addEventListener("change", () => {
    boxes.forEach((box) => { box.checked = matching.checked; });
    show();
  });
  boxes.forEach((box) => box.addEventListener("change", show));
  show(); // the browser may have kept the checks of an earlier visit
})();
