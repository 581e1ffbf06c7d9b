// Filters and sorts cards. The page is complete without it: the controls stay hidden until this runs.
"use strict";
for (const section of document.querySelectorAll("[data-cards]")) {
  const list = section.querySelector(".list");
  const cards = [...list.children];
  const controls = section.querySelector(".filters");
  const count = section.querySelector(".count");
  const filters = [...controls.querySelectorAll("[data-filter]")];
  const sort = controls.querySelector("[data-sort]");

  const wanted = (card) =>
    filters.every((filter) => {
      const value = card.dataset[filter.dataset.filter];
      return filter.type === "checkbox" ? !filter.checked || value === "yes" : !filter.value || value === filter.value;
    });

  const update = () => {
    for (const card of cards) card.hidden = !wanted(card);
    count.textContent = `${cards.filter((card) => !card.hidden).length} of ${cards.length} shown`;
  };

  const order = () => {
    const [key, sign] = sort.value.split(":");
    const rank = (card) => sign * Number(card.dataset[key]);
    list.append(...cards.slice().sort((a, b) => rank(a) - rank(b) || a.dataset.place - b.dataset.place));
  };

  for (const filter of filters) filter.addEventListener("change", update);
  if (sort) sort.addEventListener("change", order);
  for (const button of controls.querySelectorAll("[data-open]"))
    button.addEventListener("click", () => {
      for (const card of cards) if (!card.hidden) card.open = button.dataset.open === "yes";
    });
  controls.hidden = false;
  update();
}
