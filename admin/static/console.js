// The console's few moving parts: the menu on phones, selecting rows, and confirming deletions.
(() => {
  const menuButton = document.querySelector("#menu-button");
  menuButton?.addEventListener("click", () => {
    const open = menuButton.getAttribute("aria-expanded") !== "true";
    menuButton.setAttribute("aria-expanded", String(open));
    document.querySelector("#menu").classList.toggle("is-open", open);
  });

  const dialog = document.querySelector("#delete-dialog");
  if (!dialog) return;
  const problem = dialog.querySelector("[data-problem]");
  const confirm = dialog.querySelector("[data-confirm]");
  let url = "";

  const ask = (what, target) => {
    url = target;
    dialog.querySelector("[data-what]").textContent = what;
    problem.hidden = true;
    confirm.disabled = false;
    dialog.showModal();
  };

  const boxes = [...document.querySelectorAll("[data-select]")];
  const all = document.querySelector("[data-select-all]");
  const bulk = document.querySelector("[data-delete-selected]");
  const chosen = () => boxes.filter((box) => box.checked).map((box) => box.value);
  const showCount = () => {
    const count = chosen().length;
    bulk.hidden = count === 0;
    bulk.querySelector("[data-count]").textContent = count;
    all.checked = count > 0 && count === boxes.length;
    all.indeterminate = count > 0 && count < boxes.length;
  };
  if (bulk) {
    all.addEventListener("change", () => {
      boxes.forEach((box) => { box.checked = all.checked; });
      showCount();
    });
    boxes.forEach((box) => box.addEventListener("change", showCount));
    bulk.addEventListener("click", () => {
      const pks = chosen();
      const what = pks.length === 1 ? "1 record" : `${pks.length} records`;
      ask(what, `${bulk.dataset.deleteSelected}?pks=${pks.join(",")}`);
    });
    showCount(); // the browser may have kept the checks of an earlier visit
  }

  document.querySelectorAll("[data-delete]").forEach((button) => {
    button.addEventListener("click", () => ask(button.dataset.what, button.dataset.delete));
  });

  confirm.addEventListener("click", async () => {
    confirm.disabled = true;
    const answer = await fetch(url, { method: "DELETE", redirect: "manual" }).catch(() => null);
    if (answer?.ok) {
      window.location.assign(await answer.text());
    } else if (answer?.type === "opaqueredirect") {
      window.location.reload(); // signed out meanwhile
    } else {
      const plain = answer?.headers.get("content-type")?.startsWith("text/plain");
      problem.textContent = plain ? await answer.text() : "This could not be deleted. Load the page again and retry.";
      problem.hidden = false;
    }
  });
})();
