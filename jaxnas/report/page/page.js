"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const known = data.candidates;
  const tip = document.getElementById("tip");
  const card = document.getElementById("card");
  const all = (selector, inside = document) => [...inside.querySelectorAll(selector)];
  const marks = new Map();
  for (const mark of all("[data-id]")) {
    const id = mark.dataset.id;
    if (!marks.has(id)) marks.set(id, []);
    marks.get(id).push(mark);
  }

  // What is pointed at: the same candidate in every chart.
  let pointed = null;
  function point(id, mark) {
    if (pointed !== null) (marks.get(pointed) || []).forEach((m) => m.classList.remove("at"));
    pointed = id;
    tip.hidden = id === null || !known[id];
    if (tip.hidden) return;
    marks.get(id).forEach((m) => m.classList.add("at"));
    tip.textContent = `#${id} ${known[id].words}\n${known[id].figures}`;
    const box = mark.getBoundingClientRect();
    const line = mark.tagName === "path";
    const x = line ? box.left + box.width / 2 : box.right;
    const y = line ? box.top : box.bottom;
    const left = Math.min(x + 8, document.documentElement.clientWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(8, left) + scrollX}px`;
    tip.style.top = `${y + 8 + scrollY}px`;
  }
  document.addEventListener("pointerover", (event) => {
    const mark = event.target.closest("[data-id]");
    if (mark) point(mark.dataset.id, mark);
    else if (event.pointerType === "mouse") point(null);
  });

  // A candidate's card: its figures and its config.
  let opener = null;
  function open(id) {
    const one = known[id];
    if (!one) return;
    opener = document.activeElement;
    const config = JSON.stringify({ ...data.shared, ...one.config }, null, 2);
    card.replaceChildren();
    const add = (name, text) => {
      const element = document.createElement(name);
      element.textContent = text;
      card.append(element);
      return element;
    };
    add("h3", `Candidate #${id}`);
    const close = add("button", "Close");
    close.className = "close";
    close.addEventListener("click", shut);
    add("p", one.words);
    add("p", one.figures);
    for (const [name, value] of Object.entries(one.own || {}))
      add("p", `${name}: ${value.toPrecision(4)}`);
    for (const [phase, accuracy] of Object.entries(one.later || {}))
      add("p", `after phase ${phase}: accuracy ${accuracy.toFixed(4)}`);
    const copy = add("button", "Copy the config");
    copy.addEventListener("click", () => {
      const done = navigator.clipboard && navigator.clipboard.writeText(config);
      if (done) done.then(() => (copy.textContent = "Copied"), () => select(pre));
      else select(pre);
    });
    const pre = add("pre", config);
    pre.tabIndex = 0;
    if (data.show) add("p", `${data.show} ${id}`).className = "small";
    card.hidden = false;
    close.focus({ preventScroll: true });
  }
  const select = (element) => getSelection().selectAllChildren(element);
  function shut() {
    if (card.hidden) return;
    card.hidden = true;
    if (opener) opener.focus({ preventScroll: true });
  }
  document.addEventListener("click", (event) => {
    const link = event.target.closest("[data-open]");
    const mark = event.target.closest("[data-id]");
    if (link) {
      event.preventDefault();
      open(link.dataset.open);
    } else if (mark) open(mark.dataset.id);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    shut();
    point(null);
  });

  // Arrow keys walk a chart's candidates from left to right.
  const across = (mark) => mark.getBoundingClientRect().left + mark.getBoundingClientRect().top / 1e4;
  for (const chart of all(".points")) {
    chart.setAttribute("aria-description", "Arrow keys walk the candidates, Enter opens one.");
    chart.addEventListener("keydown", (event) => {
      if (event.shiftKey || event.target !== chart) return;
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Enter" && pointed !== null) open(pointed);
      if (!step) return;
      event.preventDefault();
      const kind = chart.querySelector("circle[data-id]") ? "circle" : "path";
      const own = all(`${kind}[data-id]:not(.off)`, chart);
      if (kind === "circle") own.sort((a, b) => across(a) - across(b));
      if (!own.length) return;
      const now = own.findIndex((mark) => mark.dataset.id === pointed);
      const winner = own.findIndex((mark) => mark.classList.contains("winner"));
      const next = now < 0 ? Math.max(0, winner) : (now + step + own.length) % own.length;
      point(own[next].dataset.id, own[next]);
    });
    chart.addEventListener("blur", () => point(null));
  }

  // Families and values of genes decide what is shown.
  const hidden = new Set();
  const wanted = new Map();
  function show() {
    for (const [id, own] of marks) {
      const one = known[id];
      const off = one && (hidden.has(one.family) || [...wanted].some(([gene, values]) =>
        values.size && !values.has(one.choices[data.genes.indexOf(gene)])));
      own.forEach((mark) => mark.classList.toggle("off", Boolean(off)));
      const row = document.querySelector(`#all [data-open="${id}"]`);
      if (row) row.closest("tr").classList.toggle("off", Boolean(off));
    }
  }
  for (const button of all("[data-family]"))
    button.addEventListener("click", () => {
      const family = Number(button.dataset.family);
      if (hidden.has(family)) hidden.delete(family);
      else hidden.add(family);
      for (const twin of all(`[data-family="${family}"]`))
        twin.setAttribute("aria-pressed", String(!hidden.has(family)));
      show();
    });
  function toggle(choice) {
    const { gene, value } = choice.dataset;
    if (!wanted.has(gene)) wanted.set(gene, new Set());
    const values = wanted.get(gene);
    if (values.has(value)) values.delete(value);
    else values.add(value);
    choice.setAttribute("aria-pressed", String(values.has(value)));
    show();
  }
  for (const choice of all(".choice")) {
    choice.addEventListener("click", () => toggle(choice));
    choice.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      toggle(choice);
    });
  }
  const clear = document.getElementById("clear");
  if (clear) clear.addEventListener("click", () => {
    wanted.clear();
    hidden.clear();
    for (const choice of all(".choice")) choice.setAttribute("aria-pressed", "false");
    for (const button of all("[data-family]")) button.setAttribute("aria-pressed", "true");
    show();
  });

  // The cube turns; the same projection as the page was drawn with.
  for (const cube of all(".cube")) {
    const [, , width, height] = cube.getAttribute("viewBox").split(" ").map(Number);
    let turn = Number(cube.dataset.turn);
    let tilt = Number(cube.dataset.tilt);
    const moved = all("[data-at], [data-line]", cube).map((element) => ({
      element, at: JSON.parse(element.dataset.at || element.dataset.line),
    }));
    const project = ([x, y, z]) => {
      const right = x * Math.cos(turn) + y * Math.sin(turn);
      const away = -x * Math.sin(turn) + y * Math.cos(turn);
      const up = z * Math.cos(tilt) + away * Math.sin(tilt);
      return [width / 2 + (150 * right) / 1.35, height / 2 - (150 * up) / 1.25];
    };
    const draw = () => {
      for (const { element, at } of moved) {
        const [x, y] = project(at);
        if (element.tagName === "circle") {
          element.setAttribute("cx", x);
          element.setAttribute("cy", y);
        } else if (element.tagName === "text") {
          element.setAttribute("x", x);
          element.setAttribute("y", y);
        } else element.setAttribute("d", `M${x} ${y}L${project(at.slice(3)).join(" ")}`);
      }
    };
    let from = null;
    cube.addEventListener("pointerdown", (event) => {
      from = [event.clientX, event.clientY, turn, tilt];
    });
    addEventListener("pointerup", () => (from = null));
    cube.addEventListener("pointermove", (event) => {
      if (!from) return;
      turn = from[2] + (event.clientX - from[0]) / 120;
      tilt = Math.max(-1.4, Math.min(1.4, from[3] + (event.clientY - from[1]) / 160));
      draw();
    });
    cube.addEventListener("keydown", (event) => {
      if (!event.shiftKey || !event.key.startsWith("Arrow")) return;
      event.preventDefault();
      turn += { ArrowLeft: -0.15, ArrowRight: 0.15 }[event.key] || 0;
      tilt += { ArrowUp: 0.1, ArrowDown: -0.1 }[event.key] || 0;
      tilt = Math.max(-1.4, Math.min(1.4, tilt));
      draw();
    });
  }

  // Columns of the table sort it.
  const table = document.getElementById("all");
  if (table) all("thead th", table).forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const rising = head.getAttribute("aria-sort") !== "ascending";
      for (const other of all("th", table)) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const key = (row) => row.cells[column].textContent.replace(/[#,M]/g, "");
      const rows = all("tbody tr", table);
      const sign = rising ? 1 : -1;
      const order = (a, b) =>
        isNaN(key(a)) ? key(a).localeCompare(key(b)) : key(a) - key(b);
      rows.sort((a, b) => sign * order(a, b));
      table.tBodies[0].append(...rows);
    });
  });

  document.getElementById("theme").addEventListener("click", () => {
    const root = document.documentElement;
    const dark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });
  if (location.hash.startsWith("#c")) open(location.hash.slice(2));
})();
