"use strict";
// Texts of judgements are shown through textContent alone: nothing in them becomes markup.
(() => {
  const ROW = 30;
  const byId = (id) => document.getElementById(id);
  const list = byId("list"), rows = byId("rows"), detail = byId("detail"), search = byId("search"), count = byId("count");
  const boxes = [...document.querySelectorAll("#filters input")];
  const NAMES = { wrong: "wrong", tied: "tied", unread: "unread", split: "split" };
  let items = [], shown = [], chosen = -1;

  const make = (tag, className, text) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };

  async function read() {
    const packed = Uint8Array.from(atob(byId("data").textContent.trim()), (c) => c.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return JSON.parse(await new Response(stream).text());
  }

  const haystack = (item) => {
    if (item.hay === undefined) {
      const texts = [item.id, item.domain || "", ...(item.prompt || []).map((turn) => turn.content), ...(item.responses || [])];
      item.hay = [...texts, ...item.samples.map((sample) => sample.text)].join("\n").toLowerCase();
    }
    return item.hay;
  };

  function filter() {
    const wanted = boxes.filter((box) => box.checked).map((box) => box.value);
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    shown = items.filter(
      (item) => wanted.every((flag) => item.flags.includes(flag)) && words.every((word) => haystack(item).includes(word)));
    count.textContent = `${shown.length} of ${items.length}`;
    rows.style.height = `${shown.length * ROW}px`;
    list.scrollTop = 0;
    choose(shown.length ? 0 : -1, false);
  }

  // Only the rows in sight are there: ten thousand cost no more than forty.
  function draw() {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 5);
    const last = Math.min(shown.length, first + Math.ceil(list.clientHeight / ROW) + 10);
    rows.replaceChildren();
    for (let i = first; i < last; i++) {
      const item = shown[i], row = make("div", i === chosen ? "row chosen" : "row");
      row.style.top = `${i * ROW}px`;
      row.id = `row-${i}`;
      row.setAttribute("role", "option");
      row.setAttribute("aria-selected", String(i === chosen));
      row.append(make("span", "id", item.id));
      for (const flag of item.flags) row.append(make("span", `flag ${flag}`, NAMES[flag]));
      row.addEventListener("click", () => choose(i, false));
      rows.append(row);
    }
    if (chosen >= first && chosen < last) list.setAttribute("aria-activedescendant", `row-${chosen}`);
    else list.removeAttribute("aria-activedescendant");
  }

  function choose(i, scroll) {
    chosen = i;
    if (scroll && i >= 0) {
      if (i * ROW < list.scrollTop) list.scrollTop = i * ROW;
      else if ((i + 1) * ROW > list.scrollTop + list.clientHeight) list.scrollTop = (i + 1) * ROW - list.clientHeight;
    }
    draw();
    show(shown[i]);
  }

  const scoreOf = (scores, index) => (scores ? `: ${scores[index]}` : "");

  function show(item) {
    detail.replaceChildren();
    if (!item) {
      detail.append(make("p", "hint", "Nothing matches."));
      return;
    }
    detail.append(make("h3", "", item.id));
    const known = item.label !== null && item.n > 1;
    const about = [item.domain, item.scores ? `votes ${item.scores.map((x) => +x.toFixed(2)).join(" : ")}` : "no verdict",
      known ? `labelled best: response ${item.label + 1}` : null];
    detail.append(make("p", "hint", about.filter(Boolean).join(" · ")));
    if (item.prompt) {
      for (const turn of item.prompt) {
        const card = make("div", "card");
        card.append(make("h4", "", turn.role), make("p", "text", turn.content));
        detail.append(card);
      }
      const texts = make("div", "texts");
      item.responses.forEach((response, index) => {
        const card = make("div", known && index === item.label ? "card label" : "card");
        card.append(make("h4", "", `Response ${index + 1}${scoreOf(item.scores, index)}`), make("p", "text", response));
        texts.append(card);
      });
      detail.append(texts);
    }
    const critiques = make("div", "critiques");
    for (const sample of item.samples) critiques.append(critique(item, sample, known));
    detail.append(critiques);
    detail.scrollTop = 0;
  }

  function critique(item, sample, known) {
    const card = make("div", "card"), head = make("h4", "", `Critique ${sample.i + 1}`);
    const best = sample.scores ? Math.max(...sample.scores) : null;
    let verdict = ` · ${sample.outcome}`, mood = "missed";
    if (sample.scores) {
      const alone = sample.scores.filter((score) => score === best).length === 1;
      verdict = ` · ${sample.scores.join(" : ")}`;
      mood = !known ? "" : sample.scores[item.label] === best && alone ? "right" : "missed";
    }
    head.append(make("span", mood, verdict));
    const meta = sample.meta === null ? "" : ` · meta ${(100 / (1 + Math.exp(-sample.meta))).toFixed(0)}%`;
    const order = item.n > 1 ? ` · shown ${sample.order.map((index) => index + 1).join(", ")}` : "";
    card.append(head, make("p", "hint", `${sample.tokens} tokens${order}${meta}`), marked(sample.text, sample.principles));
    return card;
  }

  // The first place where each principle stands is marked.
  function marked(text, principles) {
    const node = make("p", "text"), spans = [];
    for (const principle of principles) {
      const start = principle ? text.indexOf(principle) : -1;
      if (start >= 0 && !spans.some(([a, b]) => start < b && a < start + principle.length)) spans.push([start, start + principle.length]);
    }
    let at = 0;
    for (const [start, stop] of spans.sort((a, b) => a[0] - b[0])) {
      node.append(text.slice(at, start), make("mark", "", text.slice(start, stop)));
      at = stop;
    }
    node.append(text.slice(at));
    return node;
  }

  const step = (by) => shown.length && choose(Math.min(shown.length - 1, Math.max(0, chosen + by)), true);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target === search) {
      if (event.key === "Escape" || event.key === "Enter") list.focus();
      return;
    }
    const inList = event.target === list;
    const page = Math.max(1, Math.floor(list.clientHeight / ROW) - 1);
    const moves = { j: 1, k: -1, ...(inList ? { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -1e9, End: 1e9 } : {}) };
    if (event.key in moves) step(moves[event.key]);
    else if (event.key === "/") search.focus();
    else return;
    event.preventDefault();
  });
  list.addEventListener("scroll", draw);
  window.addEventListener("resize", draw);
  search.addEventListener("input", filter);
  boxes.forEach((box) => box.addEventListener("change", filter));
  read().then((found) => { items = found; filter(); }, (error) => {
    detail.replaceChildren(make("p", "hint", `The items cannot be read: ${error}`));
  });
})();
