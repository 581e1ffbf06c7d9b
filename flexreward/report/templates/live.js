// Asks the server for its counts and shows them. What it says is put in as text, so that no text can act.
"use strict";
const SVG = "http://www.w3.org/2000/svg";
const make = (name, text = "", classes = "") => {
  const node = document.createElement(name);
  node.textContent = text;
  node.className = classes;
  return node;
};
const percent = (share) => (share === null ? "-" : `${(100 * share).toFixed(1)} %`);
const whole = (count) => Math.round(count).toLocaleString("en");
const seconds = (time) => (time === null ? "-" : time < 1 ? `${Math.round(1000 * time)} ms` : `${time.toFixed(1)} s`);

const rect = (x, y, width, height, kind) => {
  const node = document.createElementNS(SVG, "rect");
  for (const [key, value] of Object.entries({ x, y, width, height, class: kind })) node.setAttribute(key, value);
  return node;
};

const showHistory = (history) => {
  const most = Math.max(1e-9, ...history.map((point) => Math.max(point.scored, point.unscored)));
  const width = 720 / history.length;
  const bars = history.flatMap((point, i) => {
    const up = (110 * point.scored) / most, down = (40 * point.unscored) / most;
    return [rect(i * width, 112 - up, width * 0.8, up, "good"), rect(i * width, 116, width * 0.8, down, "bad")];
  });
  const label = document.createElementNS(SVG, "text");
  label.setAttribute("y", "10");
  label.setAttribute("class", "tick");
  label.textContent = most > 1e-6 ? `${most.toFixed(most < 10 ? 1 : 0)} a second at most` : "nothing yet";
  document.getElementById("history").replaceChildren(...bars, label);
};

const gauge = (name, value, more) => {
  const box = make("div");
  box.append(make("dt", name), make("dd", value, "value"), make("dd", more));
  return box;
};

const showJudge = (judge) => {
  const reasons = Object.entries(judge.reasons).map(([reason, count]) => `${whole(count)} ${reason}`).join(", ");
  const gauges = make("dl", "", "gauges");
  gauges.append(
    gauge("Judgments", whole(judge.judgments), `${percent(judge.kept_share)} found in the store`),
    gauge("Waiting", whole(judge.waiting), `${whole(judge.refused)} calls refused as too many`),
    gauge("Unscored", percent(judge.judgments ? judge.unscored / judge.judgments : null), reasons || "none"),
    gauge("Replies that could be read", percent(judge.read_share), `${whole(judge.tokens)} tokens written`),
    gauge("Winner changed with the order", percent(judge.flip_share), "of those shown in both orders"),
    gauge("Time of a judgment", seconds(judge.mean_seconds), "the mean"),
  );
  const chart = document.createElementNS(SVG, "svg");
  chart.setAttribute("viewBox", "0 0 720 64");
  chart.setAttribute("class", "chart");
  chart.setAttribute("role", "img");
  chart.setAttribute("aria-label", `Rewards of ${judge.name}, from 0 to 1: ${judge.rewards.map(whole).join(", ")}`);
  const most = Math.max(1, ...judge.rewards);
  chart.append(...judge.rewards.map((count, i) => rect(i * 65.5, 60 - (56 * count) / most, 60, (56 * count) / most + 1, "plain")));
  const figure = make("figure");
  figure.append(chart, make("figcaption", "Rewards, from 0 on the left to 1 on the right"));
  const section = make("div");
  const phase = judge.phase === "awake" ? "" : ` (${judge.phase})`;
  section.append(make("h3", judge.name + phase), gauges, figure);
  return section;
};

const opened = new Set();
const key = (verdict) => `${verdict.at_s} ${verdict.judge} ${verdict.prompt}`;
const showVerdict = (verdict) => {
  const card = document.getElementById("card").content.cloneNode(true).firstElementChild;
  const scored = verdict.reason === "";
  card.classList.toggle("is-bad", !scored);
  card.open = opened.has(key(verdict));
  card.addEventListener("toggle", () => opened[card.open ? "add" : "delete"](key(verdict)));
  card.querySelector(".said").textContent = verdict.prompt.slice(0, 160);
  const badge = card.querySelector(".badge");
  badge.textContent = scored ? verdict.rewards.map((reward) => reward.toFixed(2)).join(" : ") : `unscored: ${verdict.reason}`;
  badge.classList.add(scored ? "good" : "bad");
  card.querySelector(".aside").textContent = `${verdict.judge}, ${seconds(verdict.seconds)}`;
  const inside = card.querySelector(".inside");
  inside.append(make("h5", "Prompt"), make("div", verdict.prompt, "prose"));
  verdict.completions.forEach((text, i) => inside.append(make("h5", `Completion ${i + 1}`), make("div", text, "prose")));
  inside.append(make("h5", "What the judge wrote"), make("div", verdict.reasoning || "nothing", "prose thought"));
  return card;
};

const show = (told) => {
  const copies = told.ingress_copies === 1 ? "1 ingress copy" : `${told.ingress_copies} ingress copies`;
  document.getElementById("state").textContent = `${copies}; ${new Date().toLocaleTimeString()}`;
  showHistory(told.history);
  document.getElementById("each").replaceChildren(...told.judges.map(showJudge));
  document.getElementById("last").replaceChildren(...told.verdicts.map(showVerdict));
  document.getElementById("last").dataset.count = told.verdicts.length;
};

const ask = async () => {
  try {
    const answer = await fetch("v1/live", { cache: "no-store", signal: AbortSignal.timeout(10000) });
    if (!answer.ok) throw new Error((await answer.json()).error);
    show(await answer.json());
  } catch (error) {
    document.getElementById("state").textContent = `The server does not answer (${error.message}); what stands below is old.`;
  }
  setTimeout(ask, 2000);
};
ask();
