"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const token = new URLSearchParams(location.search).get("token") ?? "";
  let annotator = "", items = [], at = 0, evidence = "", busy = Promise.resolve();

  async function ask(path, body) {
    const options = { headers: { "X-Label-Token": token } };
    if (body) {
      options.method = "POST";
      options.headers["Content-Type"] = "application/json";
      options.body = JSON.stringify({ annotator, ...body });
    }
    let answer;
    try {
      answer = await fetch(path, options);
    } catch {
      throw new Error("The server does not answer, so your last label was not saved. Start `audit label` again, and open the address that it prints.");
    }
    const content = await answer.json();
    if (!answer.ok) throw new Error(content.error);
    return content;
  }

  async function begin(name) {
    const content = await ask(`/items?annotator=${encodeURIComponent(name)}`);
    annotator = content.annotator;
    items = content.items;
    $("who").hidden = true;
    $("work").hidden = false;
    at = Math.max(0, items.findIndex((item) => !item.label));
    show();
  }

  const shownVerdict = (label) => (label.format_only ? "FORMAT" : label.verdict);

  function show() {
    const done = items.filter((item) => item.label).length, item = items[at];
    $("progress").value = items.length ? done / items.length : 1;
    $("place").textContent = items.length
      ? `${annotator}: text ${at + 1} of ${items.length}, ${done} labelled` + (done === items.length ? ". All are labelled; thank you." : "")
      : "Annotators do not differ on any text.";
    for (const button of document.querySelectorAll("[data-verdict]")) {
      button.setAttribute("aria-pressed", String(Boolean(item?.label) && shownVerdict(item.label) === button.dataset.verdict));
    }
    if (!item) return;
    mark(item, item.label?.evidence ?? "");
    $("rule").value = item.label?.rule ?? "";
    $("show").hidden = !item.blurb;
    $("show").setAttribute("aria-expanded", "false");
    $("blurb").hidden = true;
    $("blurb").textContent = item.blurb;
    $("others").hidden = item.others.length === 0;
    $("others").replaceChildren(...item.others.map((label, i) => {
      const line = document.createElement("p");
      const parts = [label.verdict + (label.format_only ? ", format only" : ""), label.rule.replaceAll("_", " "), label.evidence && `“${label.evidence}”`];
      line.textContent = `Annotator ${i + 1}: ${parts.filter(Boolean).join("; ")}`;
      return line;
    }));
  }

  function mark(item, wanted) {
    evidence = wanted;
    const place = wanted ? item.text.indexOf(wanted) : -1;
    $("evidence").textContent = wanted ? "The evidence is marked; mark another passage to change it." : "";
    if (place < 0) { $("text").textContent = item.text; return; }
    const marked = document.createElement("mark");
    marked.textContent = wanted;
    $("text").replaceChildren(item.text.slice(0, place), marked, item.text.slice(place + wanted.length));
  }

  function keepSelection() {
    const selection = document.getSelection();
    if (!selection.rangeCount || selection.isCollapsed || !items[at]) return;
    const range = selection.getRangeAt(0);
    if (!$("text").contains(range.commonAncestorContainer)) return;
    const chosen = range.toString();
    if (items[at].text.includes(chosen)) mark(items[at], chosen);
  }

  const give = (choice) => inTurn(async () => {
    const item = items[at];
    if (!item) return;
    const label = { verdict: choice === "FORMAT" ? "NO" : choice, format_only: choice === "FORMAT", rule: $("rule").value, evidence };
    await ask("/label", { id: item.id, ...label });
    item.label = label;
    const rest = items.map((_, i) => (at + 1 + i) % items.length);
    at = rest.find((i) => !items[i].label) ?? at;
    show();
  });

  const undo = () => inTurn(async () => {
    const content = await ask("/undo", {});
    const place = items.findIndex((item) => item.id === content.id);
    if (place < 0) { $("error").textContent = "There is no label to take back."; return; }
    items[place].label = content.label;
    at = place;
    show();
  });

  // One after the other: a key pressed while a label is being saved is about the next text.
  function inTurn(action) {
    busy = busy.then(async () => {
      $("error").textContent = "";
      try { await action(); } catch (error) { $("error").textContent = error.message; }
    });
  }

  const step = (by) => inTurn(async () => { if (at + by >= 0 && at + by < items.length) { at += by; show(); } });
  function blurb() {
    if ($("show").hidden) return;
    $("blurb").hidden = !$("blurb").hidden;
    $("show").setAttribute("aria-expanded", String(!$("blurb").hidden));
  }

  const keys = {
    y: () => give("YES"), n: () => give("NO"), u: () => give("UNCLEAR"), f: () => give("FORMAT"),
    z: undo, b: blurb, arrowleft: () => step(-1), arrowright: () => step(1),
  };
  document.addEventListener("keydown", (event) => {
    const typing = ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName);
    const action = keys[event.key.toLowerCase()];
    if (!action || typing || $("work").hidden || event.altKey || event.metaKey || event.repeat) return;
    if (event.ctrlKey && event.key.toLowerCase() !== "z") return;
    event.preventDefault();
    action();
  });
  document.addEventListener("selectionchange", () => { clearTimeout(keepSelection.wait); keepSelection.wait = setTimeout(keepSelection, 250); });
  for (const button of document.querySelectorAll("[data-verdict]")) button.addEventListener("click", () => give(button.dataset.verdict));
  $("back").addEventListener("click", () => step(-1));
  $("next").addEventListener("click", () => step(1));
  $("undo").addEventListener("click", undo);
  $("show").addEventListener("click", blurb);
  $("rule").addEventListener("change", () => $("text").focus());
  $("who").addEventListener("submit", (event) => {
    event.preventDefault();
    inTurn(() => begin($("name").value));
  });
  if ($("who").hidden) inTurn(() => begin(""));
})();
