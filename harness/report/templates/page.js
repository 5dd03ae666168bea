// Theme switch, sortable and filterable tables, picture dialogs. Without it the page still reads.
"use strict";
(() => {
  const root = document.documentElement;
  const store = {
    get() { try { return localStorage.getItem("vlsm-theme"); } catch { return null; } },
    set(value) { try { localStorage.setItem("vlsm-theme", value); } catch { /* a file may have no store */ } },
  };
  const isDark = () => root.dataset.theme
    ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const saved = store.get();
  if (saved === "dark" || saved === "light") root.dataset.theme = saved;

  const themeSwitch = () => {
    const button = document.querySelector("button.theme");
    if (!button) return;
    const say = () => {
      button.textContent = isDark() ? "Light" : "Dark";
      button.setAttribute("aria-label", `Switch to the ${isDark() ? "light" : "dark"} theme`);
    };
    button.hidden = false;
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      store.set(root.dataset.theme);
      say();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", say);
    say();
  };

  // What a cell sorts by: the figure that it begins with (none: always last), or its text.
  const key = (row, column) => {
    const cell = row.cells[column];
    const text = cell.textContent.trim();
    if (!row.closest("table").tHead.rows[0].cells[column].classList.contains("n")) return text;
    const figure = Number.parseFloat(text.replace(/,/g, "").replace(/^[<>]\s*/, ""));
    return Number.isNaN(figure) ? null : figure;
  };
  const compare = (a, b) => typeof a === "number" && typeof b === "number"
    ? a - b : String(a).localeCompare(String(b), "en", { numeric: true });

  const sortBy = (table, column, ascending) => {
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [key(row, column), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return ascending ? compare(a, b) : compare(b, a);
    });
    body.append(...rows.map(([, row]) => row));
    [...table.tHead.rows[0].cells].forEach((cell, place) => {
      if (place === column) cell.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      else cell.removeAttribute("aria-sort");
    });
  };

  const sortable = (table) => {
    [...table.tHead.rows[0].cells].forEach((cell, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...cell.childNodes);
      cell.append(button);
      button.addEventListener("click", () =>
        sortBy(table, column, cell.getAttribute("aria-sort") !== "ascending"));
    });
  };

  // A field that leaves the items in view that hold every word of it.
  const filter = (items, before, title, noun) => {
    if (items.length < 6) return;
    const tools = document.createElement("div");
    tools.className = "tools";
    const input = document.createElement("input");
    input.type = "search";
    input.placeholder = `filter ${noun}`;
    input.setAttribute("aria-label", `Filter the ${noun} of: ${title}`);
    const count = document.createElement("span");
    count.className = "muted";
    count.setAttribute("role", "status");
    const texts = items.map((item) => item.textContent.toLowerCase());
    const apply = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      items.forEach((item, place) => {
        item.hidden = !words.every((word) => texts[place].includes(word));
        shown += !item.hidden;
      });
      count.textContent = `${shown} of ${items.length} ${noun}`;
    };
    input.addEventListener("input", apply);
    tools.append(input, count);
    before.before(tools);
    apply();
  };

  // One dialog shows any case large: a copy, so that its pictures are in the file once.
  const enlarging = () => {
    const dialog = document.getElementById("viewer");
    if (!dialog) return;
    for (const button of document.querySelectorAll("button.enlarge")) {
      button.addEventListener("click", () => {
        dialog.querySelector(".stage").replaceChildren(button.closest(".case").cloneNode(true));
        dialog.showModal();
      });
    }
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  };

  const printing = () => {
    let opened = [];
    addEventListener("beforeprint", () => {
      opened = [...document.querySelectorAll("details:not([open]):not(.album)")];
      opened.forEach((details) => { details.open = true; });
    });
    addEventListener("afterprint", () => opened.forEach((details) => { details.open = false; }));
  };

  addEventListener("DOMContentLoaded", () => {
    themeSwitch();
    for (const table of document.querySelectorAll("table.data")) {
      sortable(table);
      const title = table.dataset.title || "this table";
      if (!table.closest(".first")) filter([...table.tBodies[0].rows], table.closest(".scroll") || table, title, "rows");
    }
    for (const list of document.querySelectorAll("[data-filterable]")) {
      filter([...list.children], list, list.dataset.filterable, "cases");
    }
    enlarging();
    printing();
  });
})();
