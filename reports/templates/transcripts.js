  // The transcript view: filters, search, conversations with sampled tokens marked in place, side by side, permalinks.
  const $ = (id) => document.getElementById(id);
  const index = JSON.parse($("index").textContent);
  const packed = document.getElementsByClassName("block"); // live: all but the first stand after this script, so that the page answers before they are parsed
  const parsed = new Promise((done) => { if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", done, { once: true }); else done(); });
  const CHUNK = 50, SHOWN = 300, FOLD = 1200;
  const blocks = new Map();
  let shown = [], current = -1, chosen = 0, views = [];

  // One object per token, from one list per property.
  const rows = (columns) => (columns.token ?? []).map((_, i) => Object.fromEntries(Object.entries(columns).map(([name, values]) => [name, values[i]])));

  async function block(number) {
    if (!blocks.has(number)) {
      blocks.set(number, (async () => {
        if (number >= packed.length) await parsed;
        const bytes = Uint8Array.from(atob(packed[number].textContent), (c) => c.charCodeAt(0));
        const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
        return JSON.parse(await new Response(stream).text()).map(({ turns, tokens }) => ({ turns, tokens: rows(tokens) }));
      })());
    }
    return blocks.get(number);
  }
  const details = async (i) => (await block(Math.floor(i / CHUNK)))[i % CHUNK];
  const fixed = (number, digits = 2) => (number === null || number === undefined ? "" : number.toFixed(digits));

  // Filters and the list
  function options(id, values, first = "any") {
    $(id).replaceChildren(...["", ...new Set(values)].map((value) => make("option", { value, textContent: value === "" ? first : value })));
  }
  const count = (text, words) => text.toLowerCase().split(words).length - 1;

  async function hits(i, words) {
    const { turns, tokens } = await details(i);
    const inTexts = turns.reduce((sum, turn) => sum + count(turn.text ?? "", words) + count(turn.thinking ?? "", words), 0);
    return [tokens.reduce((sum, token) => sum + count(token.text ?? "", words), 0), inTexts];
  }

  async function filter() {
    const task = $("f-task").value, condition = $("f-condition").value, verdict = $("f-verdict").value, order = $("f-order").value;
    const words = $("f-search").value.trim().toLowerCase();
    let matches = index.map((_, i) => i).filter((i) => {
      const entry = index[i], flag = entry.flag === null ? "n" : String(entry.flag);
      const fits = !verdict || (verdict === "says" ? entry.says === 1 : flag === verdict);
      return (!task || entry.task === task) && (!condition || entry.condition === condition) && fits;
    });
    let told = "";
    if (words) {
      const kept = [];
      let explained = 0, written = 0;
      for (const i of matches) {
        const [a, b] = await hits(i, words);
        if (a + b) kept.push(i);
        explained += a;
        written += b;
      }
      if (words !== $("f-search").value.trim().toLowerCase()) return;
      matches = kept;
      told = `; ${explained} hits in explanations, ${written} in texts`;
    }
    const key = { yes: (i) => index[i].yes, z: (i) => index[i].z ?? -Infinity }[order];
    if (key) matches.sort((a, b) => key(b) - key(a) || a - b);
    shown = matches;
    $("found").textContent = `${matches.length} of ${index.length} transcripts${matches.length > SHOWN ? `, the first ${SHOWN} listed` : ""}${told}`;
    $("list").replaceChildren(...matches.slice(0, SHOWN).map((i) => {
      const button = make("button", { type: "button", className: index[i].flag ? "flagged" : "", textContent: title(i) });
      button.dataset.i = String(i);
      button.setAttribute("aria-current", String(i === current));
      return make("li", {}, button);
    }));
  }

  function title(i) {
    const entry = index[i], state = entry.flag === null ? (entry.z === null ? "unscored" : `probe z ${fixed(entry.z)}`) : entry.flag ? `${entry.yes} of ${entry.k} YES` : "not flagged";
    return `${entry.task} · ${entry.condition} · ${entry.id}${entry.epoch > 1 ? ` (${entry.epoch})` : ""}: ${state}${entry.says ? ", says so" : ""}`;
  }
  const partners = (i) => index.map((_, j) => j).filter((j) => j !== i && index[j].task === index[i].task && index[j].id === index[i].id && index[j].epoch === index[i].epoch);

  // Colours of tokens
  const VERDICTS = { YES: ["--red", 45], UNCLEAR: ["--orange", 35], NO: ["--grey", 14], unscored: ["--grey", 5], "": ["--grey", 14] };
  const COLOURS = {
    verdict: (token) => VERDICTS[token.verdict] ?? VERDICTS[""],
    probe: (token) => (token.z === null ? ["--grey", 5] : [token.z >= 0 ? "--orange" : "--blue", Math.min(12 + 20 * Math.abs(token.z), 75)]),
    cosine: (token) => (token.cosine === null ? ["--grey", 5] : ["--green", Math.max(5, Math.min(100 * (token.cosine - 0.4), 70))]),
  };
  const LEGENDS = {
    verdict: [["--red", 45, "explanation graded YES"], ["--orange", 35, "UNCLEAR"], ["--grey", 14, "NO"]],
    probe: [["--orange", 60, "above deployment tokens"], ["--blue", 60, "below"], ["--grey", 5, "not read by the probes"]],
    cosine: [["--green", 60, "explanation reconstructs the vector well"], ["--green", 8, "badly"], ["--grey", 5, "not measured"]],
  };
  function paint() {
    const way = $("f-colour").value;
    for (const view of views) view.buttons.forEach((button, k) => {
      const [shade, strength] = COLOURS[way](view.tokens[k]);
      button.style.setProperty("--shade", `var(${shade})`);
      button.style.setProperty("--strength", `${strength}%`);
    });
    $("legend").replaceChildren(...LEGENDS[way].flatMap(([shade, strength, words]) => {
      const sample = make("span", { className: "legend" });
      sample.style.setProperty("--shade", `var(${shade})`);
      sample.style.setProperty("--strength", `${strength}%`);
      return [sample, ` ${words}   `];
    }));
  }

  // One conversation
  function tokenButton(view, k, text) {
    const token = view.tokens[k];
    const button = make("button", { type: "button", className: `token ${token.verdict}`, textContent: text, tabIndex: -1 });
    const z = token.z === null ? "" : `, probe z ${fixed(token.z)}`;
    button.setAttribute("aria-label", `token ${token.token.trim() || "blank"}, ${token.verdict || "not explained"}${z}`);
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => choose(view, k, true));
    button.addEventListener("pointerenter", () => tell(view, k));
    button.addEventListener("pointerleave", () => tell(view, view.chosen));
    button.addEventListener("focus", () => choose(view, k, false));
    view.buttons[k] = button;
    return button;
  }

  function marked(view, text, message, part) {
    const pieces = [];
    let at = 0;
    view.tokens.forEach((token, k) => {
      if (token.message !== message || token.part !== part || token.at === null || token.at < at || token.at + token.length > text.length) return;
      pieces.push(text.slice(at, token.at), tokenButton(view, k, text.slice(token.at, token.at + token.length)));
      at = token.at + token.length;
    });
    return [...pieces, text.slice(at)];
  }

  function said(view, text, message, part) {
    const pieces = marked(view, text, message, part);
    const box = make("div", { className: `said${part === "thinking" ? " thinking" : ""}`, dir: "auto" }, ...pieces);
    if (text.length <= FOLD || pieces.length > 1) return [box];
    box.classList.add("fold");
    const more = make("button", { type: "button", textContent: `Show all ${text.length.toLocaleString("en")} characters` });
    more.addEventListener("click", () => { box.classList.remove("fold"); more.remove(); });
    return [box, more];
  }

  function turnOf(view, turn, message) {
    const parts = [make("div", { className: "role", textContent: turn.function ? `${turn.role}: ${turn.function}` : turn.role })];
    if (turn.thinking) parts.push(make("details", { open: true }, make("summary", { textContent: "thinking" }), ...said(view, turn.thinking, message, "thinking")));
    if (turn.text) parts.push(...said(view, turn.text, message, "text"));
    else if (!turn.thinking && !turn.calls) parts.push(make("p", { className: "quiet", textContent: "(no text)" }));
    for (const [name, words] of turn.calls ?? []) parts.push(make("details", {}, make("summary", { textContent: `calls ${name}` }), make("div", { className: "said", textContent: words })));
    if (turn.error) parts.push(make("p", { textContent: `Error: ${turn.error}` }));
    if (turn.cut) parts.push(make("p", { className: "quiet", textContent: `${turn.cut.toLocaleString("en")} more characters are in the log.` }));
    return make("div", { className: `turn ${turn.role}` }, ...parts);
  }

  async function viewOf(i) {
    const { turns, tokens } = await details(i);
    const view = { i, tokens, buttons: [], chosen: -1, about: make("div", { className: "about" }) };
    view.about.setAttribute("aria-live", "polite");
    const body = turns.map((turn, message) => turnOf(view, turn, message));
    const lost = tokens.map((_, k) => k).filter((k) => view.buttons[k] === undefined);
    if (lost.length) {
      const shelf = make("div", { className: "shelf" }, ...lost.map((k) => tokenButton(view, k, tokens[k].token.replaceAll("\n", "⏎") || "∅")));
      body.push(make("p", { className: "quiet", textContent: turns.length ? "Tokens whose place in the text is not known:" : "The sampled tokens, in order:" }), shelf);
    }
    view.element = make("article", { className: "view" }, make("h3", { textContent: title(i) }), ...body, view.about);
    view.element.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step || !event.target.classList.contains("token")) return;
      event.preventDefault();
      const k = view.chosen + step;
      if (k >= 0 && k < tokens.length) choose(view, k, true);
    });
    return view;
  }

  function tell(view, k) {
    const token = view.tokens[k];
    if (!token) { view.about.replaceChildren(make("p", { className: "quiet", textContent: view.tokens.length ? "Point at a token, or focus it." : "No token of this transcript was read." })); return; }
    const facts = [`token ${JSON.stringify(token.token)} at position ${token.position}`, token.verdict || "not explained"];
    if (token.reason) facts.push(token.reason);
    if (token.cosine !== null) facts.push(`reconstruction cosine ${fixed(token.cosine)}`);
    if (token.z !== null) facts.push(`probes z ${fixed(token.z)}`);
    const parts = [make("div", { textContent: facts.join(" · ") })];
    if (token.text !== null) {
      const at = token.evidence ? token.text.indexOf(token.evidence) : -1;
      const words = at < 0 ? [token.text] : [token.text.slice(0, at), make("mark", { textContent: token.evidence }), token.text.slice(at + token.evidence.length)];
      parts.push(make("div", { className: "explanation", dir: "auto" }, ...words));
    }
    const values = Object.entries(token.probes).map(([name, value]) => `${name} ${fixed(value)}`);
    if (values.length) parts.push(make("div", { className: "quiet", textContent: `projections: ${values.join(", ")}` }));
    parts.push(make("div", { className: "quiet", textContent: `inspect view: ${index[view.i].log}, sample ${index[view.i].id}` }));
    view.about.replaceChildren(...parts);
  }

  function choose(view, k, focus) {
    if (view.buttons[view.chosen]) { view.buttons[view.chosen].setAttribute("aria-pressed", "false"); view.buttons[view.chosen].tabIndex = -1; }
    view.chosen = k;
    tell(view, k);
    const button = view.buttons[k];
    if (!button) return;
    button.setAttribute("aria-pressed", "true");
    button.tabIndex = 0;
    if (focus && document.activeElement !== button) button.focus();
    if (view === views[0]) { chosen = k; if (focus) remember(); }
  }

  // Opening, side by side, permalinks
  const fields = (i) => ({ task: index[i].task, condition: index[i].condition, id: index[i].id, epoch: String(index[i].epoch) });
  function address() {
    const words = new URLSearchParams(fields(current)), token = views[0]?.tokens[chosen];
    if (token) words.set("token", `${token.message}.${token.position}`);
    if (views[1]) words.set("beside", index[views[1].i].condition);
    return `#${words}`;
  }
  function remember() { history.replaceState(null, "", address()); }

  async function open(i, place = null, beside = $("beside").value) {
    current = i;
    for (const button of $("list").querySelectorAll("button")) button.setAttribute("aria-current", String(Number(button.dataset.i) === i));
    const others = partners(i), second = others.find((j) => index[j].condition === beside);
    options("beside", others.map((j) => index[j].condition), "nothing");
    $("beside").value = second === undefined ? "" : beside;
    $("beside").disabled = !others.length;
    const made = await Promise.all([i, ...(second === undefined ? [] : [second])].map(viewOf));
    if (current !== i) return;
    views = made;
    $("views").classList.toggle("two", views.length > 1);
    $("views").replaceChildren(...views.map((view) => view.element));
    for (const view of views) {
      const asked = place === null || view !== views[0] ? -1 : view.tokens.findIndex((token) => `${token.message}.${token.position}` === place);
      const first = view.tokens.findIndex((token) => token.verdict === "YES");
      choose(view, asked >= 0 ? asked : Math.max(first, 0), false);
    }
    paint();
  }

  function flagged(step) {
    const view = views[0];
    if (!view) return;
    const marks = view.tokens.map((_, k) => k).filter((k) => view.tokens[k].verdict === "YES");
    const next = step > 0 ? marks.find((k) => k > view.chosen) ?? marks[0] : marks.findLast((k) => k < view.chosen) ?? marks.at(-1);
    if (next === undefined) $("found").textContent = "No token of this transcript is flagged.";
    else choose(view, next, true);
  }

  function fromAddress() {
    const words = new URLSearchParams(location.hash.slice(1));
    if (!words.has("id")) return false;
    const i = index.findIndex((_, j) => Object.entries(fields(j)).every(([name, value]) => words.get(name) === value));
    if (i < 0) { $("found").textContent = "The link names a transcript that is not in this report."; return false; }
    open(i, words.get("token"), words.get("beside") ?? "").then(() => { $("transcripts").scrollIntoView(); views[0]?.buttons[chosen]?.focus(); });
    return true;
  }

  options("f-task", index.map((entry) => entry.task));
  options("f-condition", index.map((entry) => entry.condition));
  if (!index.some((entry) => entry.flag !== null)) $("f-colour").value = "probe";
  for (const id of ["f-task", "f-condition", "f-verdict", "f-order"]) $(id).addEventListener("change", filter);
  $("f-colour").addEventListener("change", paint);
  $("beside").addEventListener("change", () => open(current).then(remember));
  $("next").addEventListener("click", () => flagged(1));
  $("previous").addEventListener("click", () => flagged(-1));
  $("link").addEventListener("click", async () => {
    remember();
    try { await navigator.clipboard.writeText(location.href); $("link").textContent = "Copied"; } catch { $("link").textContent = "The address bar has the link"; }
    setTimeout(() => { $("link").textContent = "Copy link"; }, 2000);
  });
  let waiting = 0;
  $("f-search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(filter, 200); });
  $("list").addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) open(Number(button.dataset.i)).then(remember);
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
    if (!event.target.closest("#transcripts") && event.target !== document.body) return;
    if (event.key === "n") flagged(1);
    if (event.key === "p") flagged(-1);
  });
  addEventListener("hashchange", fromAddress);
  filter().then(() => { if (!fromAddress() && shown.length) open(shown[0]); });
