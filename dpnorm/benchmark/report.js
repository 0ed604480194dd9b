"use strict";

const byText = new Intl.Collator("en", { numeric: true });

function valueOf(row, column) {
  let at = 0;
  for (const cell of row.cells) {
    if (at === column) {
      const text = cell.dataset.v ?? cell.textContent.trim();
      if (text === "" || text === "—") return null;
      return Number.isNaN(Number(text)) ? text : Number(text);
    }
    at += cell.colSpan;
  }
  return null;
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a < b ? -1 : Number(a > b);
  return byText.compare(a, b);
}

function sorted(rows, column, direction) {
  const pairs = rows.map((row) => [valueOf(row, column), row]);
  const known = pairs.filter(([value]) => value !== null);
  const missing = pairs.filter(([value]) => value === null);
  const sign = direction === "descending" ? -1 : 1;
  known.sort(([a], [b]) => sign * compare(a, b));
  return [...known, ...missing].map(([, row]) => row);
}

function makeSortable(table, rows) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const next = { ascending: "descending", descending: null };
      const current = head.getAttribute("aria-sort");
      const direction = current === null ? "ascending" : next[current];
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      if (direction) head.setAttribute("aria-sort", direction);
      table.classList.toggle("sorted", Boolean(direction));
      table.tBodies[0].append(...(direction ? sorted(rows, column, direction) : rows));
    });
  });
}

function labelled(text, control) {
  const label = document.createElement("label");
  label.append(text, control);
  return label;
}

function variantChoice(rows) {
  const names = [...new Set(rows.map((row) => row.cells[0].textContent.trim()))];
  const choice = document.createElement("select");
  choice.append(new Option("all", ""), ...names.map((name) => new Option(name, name)));
  return names.length > 1 ? choice : null;
}

function makeFilterable(table, rows) {
  const field = document.createElement("input");
  field.type = "search";
  const choice = "choose" in table.dataset ? variantChoice(rows) : null;
  const count = document.createElement("output");
  const update = () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = row.textContent.toLowerCase();
      const chosen = !choice?.value || row.cells[0].textContent.trim() === choice.value;
      row.hidden = !chosen || !words.every((word) => text.includes(word));
    }
    const left = rows.filter((row) => !row.hidden).length;
    count.value = left === rows.length ? "" : `${left} of ${rows.length} rows`;
  };
  const controls = document.createElement("div");
  controls.className = "controls";
  controls.append(labelled("Filter ", field));
  if (choice) controls.append(labelled("Variant ", choice));
  controls.append(count);
  field.addEventListener("input", update);
  choice?.addEventListener("change", update);
  (table.closest(".scroll") ?? table).before(controls);
}

for (const table of document.querySelectorAll("table.data")) {
  const rows = [...table.tBodies[0].rows];
  if (rows.length > 1) {
    makeSortable(table, rows);
    makeFilterable(table, rows);
  }
}

const folded = new Set();
addEventListener("beforeprint", () => {
  for (const fold of document.querySelectorAll("details.paper:not([open])")) {
    folded.add(fold);
    fold.open = true;
  }
});
addEventListener("afterprint", () => {
  for (const fold of folded) fold.open = false;
  folded.clear();
});
