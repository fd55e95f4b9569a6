(() => {
  const list = document.getElementById("columns"), find = document.querySelector("input"), rows = [...list.children];
  const chips = [...document.querySelectorAll(".chip")], heads = [...document.querySelectorAll(".sort")];
  find.hidden = false;
  const show = () => {
    const text = find.value.toLowerCase(), wanted = chips.filter(c => c.getAttribute("aria-pressed") === "true").map(c => c.dataset.verdict);
    for (const row of rows) row.hidden = !row.dataset.name.toLowerCase().includes(text) || (wanted.length > 0 && !wanted.includes(row.dataset.verdict));
  };
  find.addEventListener("input", show);
  for (const chip of chips) chip.addEventListener("click", () => {
    chip.setAttribute("aria-pressed", chip.getAttribute("aria-pressed") !== "true");
    show();
  });
  const value = { name: r => r.dataset.name, verdict: r => +r.dataset.rank, score: r => +r.dataset.score, nulls: r => +r.dataset.nulls };
  for (const head of heads) head.addEventListener("click", () => {
    const key = head.dataset.key, first = key === "name" || key === "verdict" ? "ascending" : "descending";
    const now = head.getAttribute("aria-sort"), next = now === "none" ? first : now === "ascending" ? "descending" : "ascending";
    for (const other of heads) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", next);
    const sign = next === "ascending" ? 1 : -1, of = value[key];
    rows.sort((a, b) => sign * (of(a) < of(b) ? -1 : of(a) > of(b) ? 1 : 0));
    list.append(...rows);
  });
})();
