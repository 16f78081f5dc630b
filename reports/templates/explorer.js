"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const index = JSON.parse($("index").textContent);
  const packed = [...document.querySelectorAll("script.block")].map((element) => element.textContent);
  const CHUNK = 100, SHOWN = 300;
  const blocks = new Map();
  let shown = [], current = -1;

  async function block(number) {
    if (!blocks.has(number)) {
      blocks.set(number, (async () => {
        const bytes = Uint8Array.from(atob(packed[number]), (c) => c.charCodeAt(0));
        const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
        return JSON.parse(await new Response(stream).text());
      })());
    }
    return blocks.get(number);
  }
  const tokensOf = async (i) => (await block(Math.floor(i / CHUNK)))[i % CHUNK];

  function options(id, values) {
    for (const value of ["", ...new Set(values)]) {
      const option = document.createElement("option");
      option.value = value;
      option.textContent = value === "" ? "any" : value;
      $(id).append(option);
    }
  }

  async function filter() {
    const task = $("f-task").value, condition = $("f-condition").value, verdict = $("f-verdict").value;
    const words = $("f-search").value.trim().toLowerCase();
    let matches = [];
    index.forEach((entry, i) => {
      const flag = entry.flag === null ? "n" : String(entry.flag);
      if ((!task || entry.task === task) && (!condition || entry.condition === condition) && (!verdict || flag === verdict)) matches.push(i);
    });
    if (words) {
      const kept = [];
      for (const i of matches) {
        if ((await tokensOf(i)).some((token) => token[2].toLowerCase().includes(words))) kept.push(i);
      }
      matches = kept;
      if (words !== $("f-search").value.trim().toLowerCase()) return;
    }
    shown = matches;
    $("found").textContent = `${matches.length} of ${index.length} transcripts` + (matches.length > SHOWN ? `, the first ${SHOWN} listed` : "");
    const list = $("list");
    list.replaceChildren(...matches.slice(0, SHOWN).map((i) => {
      const entry = index[i], item = document.createElement("li"), button = document.createElement("button");
      const state = entry.flag === null ? "unscored" : entry.flag ? `${entry.yes} YES` : "not flagged";
      button.textContent = `${entry.task} · ${entry.condition} · ${entry.id}${entry.epoch > 1 ? ` (${entry.epoch})` : ""}: ${state}, k ${entry.k}`;
      button.dataset.i = String(i);
      if (entry.flag) button.className = "YES";
      item.append(button);
      return item;
    }));
  }

  const quality = (cosine) => (cosine === null || cosine === undefined ? "" : `, reconstruction cosine ${cosine.toFixed(2)}`);
  const band = (cosine) => (cosine === null || cosine === undefined ? "" : cosine >= 0.9 ? "q3" : cosine >= 0.8 ? "q2" : "q1");

  function partners(i) {
    const entry = index[i], same = index.map((_, j) => j).filter((j) => index[j].task === entry.task && index[j].id === entry.id && index[j].epoch === entry.epoch);
    $("pairs").replaceChildren(...(same.length < 2 ? [] : same).map((j) => {
      const button = document.createElement("button"), state = index[j].flag === null ? "unscored" : index[j].flag ? `${index[j].yes} YES` : "not flagged";
      button.textContent = `${index[j].condition}: ${state}`;
      button.setAttribute("aria-current", String(j === i));
      if (index[j].flag) button.className = "YES";
      button.addEventListener("click", () => open(j));
      return button;
    }));
  }

  async function open(i) {
    current = i;
    partners(i);
    for (const button of $("list").querySelectorAll("button")) button.setAttribute("aria-current", String(Number(button.dataset.i) === i));
    const tokens = await tokensOf(i);
    $("tokens").replaceChildren(...tokens.map((token, place) => {
      const button = document.createElement("button");
      button.textContent = token[0].replaceAll("\n", "\u23ce") || "\u2205";
      button.className = `${token[3]} ${band(token[6])}`;
      button.title = `position ${token[1]}, ${token[3]}${quality(token[6])}`;
      button.setAttribute("aria-label", `token ${token[0]}, position ${token[1]}, ${token[3]}${quality(token[6])}`);
      button.setAttribute("aria-pressed", "false");
      button.dataset.place = String(place);
      return button;
    }));
    const first = tokens.findIndex((token) => token[3] === "YES");
    if (tokens.length) await choose(Math.max(first, 0), false);
    else { $("about").textContent = index[i].log; $("told").textContent = "No token of this transcript was read."; }
  }

  async function choose(place, focus) {
    const tokens = await tokensOf(current), token = tokens[place];
    const buttons = [...$("tokens").querySelectorAll("button")];
    buttons.forEach((button, p) => button.setAttribute("aria-pressed", String(p === place)));
    if (focus) buttons[place].focus();
    $("about").textContent = `${token[3]}${token[5] ? ` (${token[5]})` : ""}, position ${token[1]}${quality(token[6])}; inspect view: ${index[current].log}, sample ${index[current].id}`;
    const text = token[2], evidence = token[4], at = evidence ? text.indexOf(evidence) : -1;
    if (at < 0) { $("told").textContent = text; return; }
    const mark = document.createElement("mark");
    mark.textContent = evidence;
    $("told").replaceChildren(text.slice(0, at), mark, text.slice(at + evidence.length));
  }

  options("f-task", index.map((entry) => entry.task));
  options("f-condition", index.map((entry) => entry.condition));
  for (const id of ["f-task", "f-condition", "f-verdict"]) $(id).addEventListener("change", filter);
  let waiting = 0;
  $("f-search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(filter, 200); });
  $("list").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) open(Number(button.dataset.i));
  });
  $("tokens").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) choose(Number(button.dataset.place), false);
  });
  $("tokens").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const buttons = $("tokens").querySelectorAll("button");
    const place = Number(document.activeElement?.dataset?.place ?? -1) + (step ?? 0);
    if (step && place >= 0 && place < buttons.length) { event.preventDefault(); choose(place, true); }
  });
  filter().then(() => { if (shown.length) open(shown[0]); });
})();
