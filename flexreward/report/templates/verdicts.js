// The browser of verdicts: a list of all rows, filtered and searched, and each row whole when it is opened.
// Texts become text nodes and nothing else. Work is cut into slices, so that the page never stands still.
"use strict";
(() => {
  const browser = document.getElementById("browser");
  if (!browser) return;
  const byId = (id) => document.getElementById(id);
  const dataOf = (name) => [...document.querySelectorAll(`script[data-${name}]`)];
  const settings = JSON.parse(byId("settings").textContent);
  const list = byId("verdicts"), count = byId("count"), pager = byId("pager"), help = byId("help");
  const search = byId("search"), further = byId("further");
  const filters = [...browser.querySelectorAll("[data-filter]")];
  const PAGE = 40;
  const SLICE_MS = 40;
  const pause = () => new Promise((resolve) => setTimeout(resolve));

  // ---- The list: columns of all rows, in the order of the outcome file.

  const rows = { id: [], said: [], result: [], file: [], place: [], group: [], reason: [], orders: [], people: [], judge: [] };

  async function readList() {
    for (const node of dataOf("list")) {
      const part = JSON.parse(node.textContent);
      for (const name in rows) for (const value of part[name]) rows[name].push(value);
      node.remove();
      await pause();
    }
  }

  // ---- Verdicts: blocks in the page and shards beside it, parsed when they are needed, the latest few kept.

  const blocks = dataOf("verdicts"), shards = new Map(), parsed = new Map();
  const KEPT = 12;
  let missing = false;

  window.flexrewardShard = (number, text) => {
    if (shards.has(number)) shards.get(number).text = text;
  };

  function shardText(number) {
    if (!shards.has(number)) {
      const shard = { text: null };
      shard.loaded = new Promise((resolve) => {
        const script = document.createElement("script");
        script.src = `${settings.shards}/${String(number).padStart(3, "0")}.js`;
        script.addEventListener("load", () => resolve(shard.text));
        script.addEventListener("error", () => resolve(null));
        shard.script = script;
        document.head.append(script);
      });
      shards.set(number, shard);
    }
    return shards.get(number).loaded;
  }

  async function fileOf(number) {
    let found = parsed.get(number);
    if (!found) {
      const text = number < blocks.length ? blocks[number].textContent : await shardText(number - blocks.length);
      if (text === null) {
        shards.delete(number - blocks.length);
        return null;
      }
      found = parsed.get(number) || JSON.parse(text);
      if (number >= blocks.length) {
        shards.get(number - blocks.length)?.script.remove();
        shards.delete(number - blocks.length);
      }
    }
    parsed.delete(number);
    parsed.set(number, found);
    if (parsed.size > KEPT) parsed.delete(parsed.keys().next().value);
    return found;
  }

  const inPage = (row) => rows.file[row] < blocks.length;

  // ---- Filter and search: the list at once, the texts slice by slice.

  const state = { matches: [], page: 0, round: 0, query: "", everywhere: false };

  function wanted() {
    const asked = filters.map((node) => [node.dataset.filter, node]).filter(([, node]) => node.type === "checkbox" ? node.checked : node.value !== "");
    const tests = asked.map(([name, node]) => {
      if (name === "here") return inPage;
      const value = Number(node.value);
      return (row) => rows[name][row] === value;
    });
    const found = [];
    for (let row = 0; row < rows.id.length; row++) if (tests.every((test) => test(row))) found.push(row);
    return found;
  }

  const textOf = (shown) => (shown === null || shown === undefined ? "" : Array.isArray(shown) ? shown[0] + "\n" + shown[2] : shown);

  function holds(verdict, query) {
    const has = (shown) => textOf(shown).toLowerCase().includes(query);
    return (
      has(verdict.prompt) || verdict.completions.some((one) => has(one.text) || has(one.system)) ||
      verdict.judges.some((judge) => judge.orders.some((order) => order.votes.some((vote) => has(vote.thought) || vote.final.some(([part]) => has(part)))))
    );
  }

  async function update({ page = 0 } = {}) {
    const round = ++state.round;
    const candidates = wanted();
    state.page = page;
    state.query = search.value.trim().toLowerCase();
    further.hidden = true;
    if (!state.query) {
      state.matches = candidates;
      tellCount();
      return drawPage();
    }
    const first = candidates.filter((row) => rows.said[row].toLowerCase().includes(state.query) || rows.id[row].toLowerCase().includes(state.query));
    state.matches = first;
    drawPage();
    const rest = new Set(candidates);
    for (const row of first) rest.delete(row);
    await searchTexts(rest, round);
  }

  async function searchTexts(rest, round) {
    const found = new Set(state.matches), byFile = new Map();
    for (const row of rest) {
      if (!state.everywhere && !inPage(row)) continue;
      if (!byFile.has(rows.file[row])) byFile.set(rows.file[row], []);
      byFile.get(rows.file[row]).push(row);
    }
    const before = found.size;
    let began = performance.now(), done = 0;
    tellCount(`, reading the texts …`);
    for (const [number, inFile] of byFile) {
      const verdicts = await fileOf(number);
      if (round !== state.round) return;
      if (verdicts === null) { missing = true; continue; }
      for (const row of inFile) {
        if (holds(verdicts[rows.place[row]], state.query)) found.add(row);
        if (performance.now() - began > SLICE_MS) {
          await pause();
          if (round !== state.round) return;
          began = performance.now();
        }
      }
      done++;
      await pause();
      if (round !== state.round) return;
      began = performance.now();
      tellCount(`, read ${Math.round((100 * done) / byFile.size)} % of the texts …`, found.size);
    }
    state.matches = [...found].sort((a, b) => a - b);
    if (found.size > before) drawPage();
    tellCount();
    const unread = [...rest].filter((row) => !inPage(row)).length;
    if (unread && !state.everywhere) {
      further.textContent = `search the whole texts of ${unread.toLocaleString("en")} more`;
      further.hidden = false;
    }
  }

  function tellCount(more = "", found = state.matches.length) {
    const gone = missing ? `; ${settings.shards} is not beside this page` : "";
    count.textContent = `${found.toLocaleString("en")} of ${rows.id.length.toLocaleString("en")} ${settings.noun}s${more}${gone}`;
  }

  // ---- Drawing: a page of closed rows; an opened one is filled from its verdict.

  function el(tag, className, ...children) {
    const node = document.createElement(tag);
    if (className) node.className = className;
    node.append(...children.filter((child) => child !== null && child !== ""));
    return node;
  }

  const CODE = /⟨(U\+[0-9A-F]{4,6}(?: ×\d+)?)⟩/;

  // What the report spelled out as ⟨U+202E⟩ gets its box.
  function boxed(text) {
    return text.split(CODE).map((part, i) => (i % 2 ? el("span", "unseen", part) : part));
  }

  function texts(shown) {
    if (!Array.isArray(shown)) return boxed(shown);
    const note = el("span", "cut", `… ${shown[1].toLocaleString("en")} characters left out of this page …`);
    return [...boxed(shown[0]), note, ...boxed(shown[2])];
  }

  function prose(shown, className = "") {
    const node = el("div", `prose ${className}`);
    node.dir = "auto";
    node.tabIndex = 0;
    if (shown === null) node.append(el("span", "cut", "text not in this folder"));
    else if (shown === "") node.append(el("span", "cut", "empty"));
    else node.append(...texts(shown));
    return node;
  }

  const SIDES = { A: "side-A", B: "side-B" };
  const letter = (name) => el("span", "letter", name);

  function media(found) {
    return found.map((one) => {
      if (!one.src) return el("p", "problem", `${one.kind} ${one.name} ${settings.missing}`);
      const node = el({ image: "img", video: "video", audio: "audio" }[one.kind], "medium");
      if (one.kind === "image") node.alt = one.name;
      else {
        node.controls = true;
        node.preload = "metadata";
        node.setAttribute("aria-label", one.name);
      }
      node.src = one.src;
      return node;
    });
  }

  const TONES = settings.tones;
  const badge = (result, words) => el("span", `badge ${TONES[result] || ""}`, words[result]);

  function row(number) {
    const card = el("details", "card verdict");
    card.dataset.row = number;
    const result = settings.order[rows.result[number]];
    if (TONES[result] === "bad") card.classList.add("is-bad");
    const flipped = settings.orders[rows.orders[number]];
    const said = el("span", "said", ...boxed(rows.said[number] || rows.id[number]));
    said.dir = "auto";
    const summary = el("summary", "", said);
    const group = settings.group[rows.group[number]];
    if (group) summary.append(el("span", "kind", ...boxed(group)));
    const people = settings.people[rows.people[number]], judge = settings.judge[rows.judge[number]];
    summary.append(el("span", "aside", `${settings.beside_people ? `people ${people || "–"}, ` : ""}${settings.by}${judge || "–"}`));
    if (flipped) summary.append(el("span", "badge amber", flipped === "flipped" ? "orders disagree" : "orders half agree"));
    summary.append(badge(result, settings.results));
    card.append(summary);
    card.addEventListener("toggle", () => { if (card.open) fill(card, number); });
    return card;
  }

  async function fill(card, number) {
    if (card.dataset.filled) return;
    card.dataset.filled = "yes";
    const inside = el("div", "inside", el("p", "aside", "loading …"));
    card.querySelector(".inside")?.remove();
    card.append(inside);
    const file = await fileOf(rows.file[number]);
    if (!file) {
      missing = true;
      delete card.dataset.filled;
      inside.replaceChildren(el("p", "problem", `This ${settings.noun} lies in the folder ${settings.shards}, which is not beside this page.`));
      return;
    }
    inside.replaceChildren(...whole(file[rows.place[number]]));
    mark(inside);
  }

  function whole(verdict) {
    const link = el("a", "link", ...boxed(verdict.id));
    link.href = "#" + encodeURIComponent(verdict.id);
    link.title = `A link to this ${settings.noun}`;
    const parts = [el("p", "facts-line", link, verdict.group ? el("span", "aside", ...boxed(verdict.group)) : "")];
    if (verdict.prompt !== null || verdict.media.length) parts.push(el("h4", "", "Prompt"));
    if (verdict.media.length) parts.push(el("div", "media", ...media(verdict.media)));
    if (verdict.prompt) parts.push(prose(verdict.prompt));
    parts.push(el("div", "sides", ...verdict.completions.map((one) => completion(one, verdict))));
    verdict.judges.forEach((judge) => parts.push(...judged(judge, verdict)));
    return parts;
  }

  function completion(one, verdict) {
    const heading = el("h4", "", verdict.completions.length > 1 ? letter(one.label) : "Completion");
    if (one.best) heading.append(el("span", "badge plain", settings.best));
    if (one.system) heading.append(el("span", "aside", ...boxed(one.system)));
    const node = el("div", `side ${SIDES[one.label] || "side-more"}`, heading);
    if (one.media.length) node.append(el("div", "media", ...media(one.media)));
    if (one.text !== null || !one.media.length) node.append(prose(one.text));
    return node;
  }

  function judged(judge, verdict) {
    const told = el("p", "why", badge(judge.result, settings.each), " ");
    if (judge.name) told.prepend(el("b", "", ...boxed(judge.name)), " ");
    told.append(verdict.human, " ");
    if (judge.reason) told.append(`The judge is unscored: ${judge.reason}.`);
    else if (verdict.completions.length > 1) {
      told.append(judge.brief === "tie" || judge.brief === "both bad" ? `The judge sees a ${judge.brief === "tie" ? "tie" : "pair that is bad"}` : `The judge prefers ${judge.brief}`, ` (${judge.scores.join(" : ")}).`);
    } else told.append(`The judge gave ${judge.brief}.`);
    if (judge.disagree) told.append(judge.disagree === "flipped" ? " Its verdict turns with the order." : " In one order it names a favourite, in the other it sees a tie.");
    const node = [told, ...done(judge.note), el("div", "sides orders", ...judge.orders.map((order) => orderOf(order, verdict)))];
    return node;
  }

  function orderOf(order, verdict) {
    const several = verdict.completions.length > 1;
    const heading = el("h4", "", several ? `${order.shown[0] || "?"} shown first ` : "The judge ");
    if (!order.scores.length) heading.append(el("span", "badge bad", "unreadable"));
    else if (several) {
      const tie = order.prefers === "tie" || order.prefers === "both bad";
      heading.append(el("span", `badge ${tie ? "plain" : "prefers " + (SIDES[order.prefers] || "")}`, tie ? order.prefers : `prefers ${order.prefers}`));
    }
    const node = el("div", "order", heading);
    if (several && order.scores.length)
      node.append(el("p", "scores", ...order.scores.map((score, i) => el("span", SIDES[verdict.completions[i]?.label] || "", letter(verdict.completions[i]?.label || "?"), " ", score))));
    if (several) node.append(el("p", "aside", "In this reply " + order.shown.map((name, i) => `${settings.assistant} ${i + 1} is ${name}`).join(", ") + "."));
    order.votes.forEach((vote, i) => node.append(voteOf(vote, i, order.votes.length)));
    if (!order.votes.length) node.append(el("p", "problem", "The judge wrote no reply."));
    return node;
  }

  // What was done to a prompt or a reply, where something was.
  function done(note) {
    return note ? [el("p", "aside", note[0].toUpperCase() + note.slice(1) + ".")] : [];
  }

  function voteOf(vote, i, total) {
    if (total === 1) return el("div", "reply", ...reply(vote));
    const scores = vote.scores.length ? vote.scores.join(" : ") : "unread";
    const node = el("details", "vote", el("summary", "", el("span", "label", `Vote ${i + 1} of ${total}`), el("b", "", scores)));
    const show = () => { if (node.open && node.children.length === 1) { node.append(...reply(vote)); mark(node); } };
    node.addEventListener("toggle", show);
    if (i === 0) { node.open = true; show(); }
    return node;
  }

  function reply(vote) {
    const parts = [];
    if (vote.thought !== null) parts.push(el("h5", "", "Reasoning"), prose(vote.thought, "thought"));
    parts.push(...done(vote.note));
    const final = prose("", "final");
    if (vote.final.length) final.replaceChildren(...vote.final.flatMap(([part, isScore]) => (isScore ? [el("mark", "", ...texts(part))] : texts(part))));
    parts.push(el("h5", "", "Final answer"), final);
    if (vote.problem) parts.push(el("p", "problem", `Unscored: ${vote.problem}.`));
    return parts;
  }

  // Finds in an opened row stand out, where the browser can mark text without touching it.
  function mark(node) {
    if (!state.query || !window.Highlight || !CSS.highlights) return;
    const found = [], walker = document.createTreeWalker(node, NodeFilter.SHOW_TEXT);
    while (walker.nextNode() && found.length < 500) {
      const text = walker.currentNode.data.toLowerCase();
      for (let at = text.indexOf(state.query); at >= 0 && found.length < 500; at = text.indexOf(state.query, at + state.query.length)) {
        if (at + state.query.length > walker.currentNode.length) break;
        const range = new Range();
        range.setStart(walker.currentNode, at);
        range.setEnd(walker.currentNode, at + state.query.length);
        found.push(range);
      }
    }
    CSS.highlights.set("found", new Highlight(...found));
  }

  const lastPage = () => Math.max(0, Math.ceil(state.matches.length / PAGE) - 1);

  function drawPage() {
    state.page = Math.min(Math.max(0, state.page), lastPage());
    const start = state.page * PAGE;
    list.replaceChildren(...state.matches.slice(start, start + PAGE).map(row));
    if (!state.matches.length && rows.id.length) list.append(el("p", "note", `No ${settings.noun} is like this. Choose less, or search for something else.`));
    const [back, at, on] = pager.children;
    pager.hidden = state.matches.length <= PAGE;
    back.disabled = state.page === 0;
    on.disabled = state.page === lastPage();
    at.textContent = `${(start + 1).toLocaleString("en")} to ${Math.min(start + PAGE, state.matches.length).toLocaleString("en")}`;
  }

  function turn(by, focus) {
    const page = Math.min(Math.max(0, state.page + by), lastPage());
    if (page === state.page) return false;
    state.page = page;
    drawPage();
    if (focus) summaries().at(by > 0 ? 0 : -1)?.focus();
    else browser.scrollIntoView();
    return true;
  }

  // ---- Links to one verdict, keys, and the start.

  const summaries = () => [...list.querySelectorAll(".verdict > summary")];

  async function follow() {
    let id;
    try { id = decodeURIComponent(location.hash.slice(1)); } catch { return; }
    if (!id || byId(id)) return;
    const number = rows.id.indexOf(id);
    if (number < 0) return;
    if (!state.matches.includes(number)) {
      for (const node of filters) node.type === "checkbox" ? (node.checked = false) : (node.value = "");
      search.value = "";
      await update();
    }
    state.page = Math.floor(state.matches.indexOf(number) / PAGE);
    drawPage();
    const card = list.querySelector(`[data-row="${number}"]`);
    card.open = true;
    await fill(card, number);
    card.scrollIntoView();
    card.firstChild.focus({ preventScroll: true });
  }

  function named(card) {
    const id = "#" + encodeURIComponent(rows.id[card.dataset.row]);
    if (location.hash !== id) history.replaceState(null, "", id);
  }

  // Down or up one row. Where one is open, reading goes on: it closes and the next one opens.
  function move(by) {
    const all = summaries();
    const at = all.indexOf(document.activeElement.closest?.(".verdict")?.firstChild);
    if (at < 0) return all[0]?.focus();
    const reading = all[at].parentNode.open;
    let next = all[at + by];
    if (!next) {
      if (!turn(by, true)) return;
      next = document.activeElement;
    }
    next.focus();
    if (reading) {
      all[at].parentNode.open = false;
      next.parentNode.open = true;
      next.parentNode.scrollIntoView({ block: "start" });
    }
  }

  const KEYS = {
    j: () => move(1), k: () => move(-1),
    "/": () => { search.focus(); search.select(); },
    "?": () => help.showModal(),
    "]": () => turn(1, false), "[": () => turn(-1, false),
    o: () => { const card = document.activeElement.closest?.(".verdict"); if (card) card.open = !card.open; },
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || help.open) return;
    if (event.key === "Escape") {
      if (event.target === search) { search.value ? ((search.value = ""), update()) : search.blur(); return; }
      const card = event.target.closest?.(".verdict[open]");
      if (card) { card.open = false; card.firstChild.focus(); }
      return;
    }
    if (event.target.matches?.("input, select, textarea")) return;
    const arrows = event.target.matches?.(".verdict > summary") ? { ArrowDown: KEYS.j, ArrowUp: KEYS.k } : {};
    const act = KEYS[event.key] || arrows[event.key];
    if (act) { event.preventDefault(); act(); }
  });

  let typed;
  search.addEventListener("input", () => { state.everywhere = false; clearTimeout(typed); typed = setTimeout(update, 150); });
  further.addEventListener("click", () => { state.everywhere = true; update(); });
  for (const node of filters) node.addEventListener("change", () => update());
  pager.children[0].addEventListener("click", () => turn(-1, false));
  pager.children[2].addEventListener("click", () => turn(1, false));
  byId("keys").addEventListener("click", () => help.showModal());
  list.addEventListener("toggle", (event) => { if (event.target.matches(".verdict[open]")) named(event.target); }, true);
  window.addEventListener("hashchange", follow);

  readList().then(async () => {
    browser.querySelector(".filters").hidden = false;
    await update();
    await follow();
    browser.dataset.ready = "yes";
  });
})();
