// Draws what the kernel says (`view`, `reasons`) and sends back what the reader does. Names are data from elsewhere: they
// go into the page as text, never as markup. Every control is a button, an input or a select, so that keys and screen
// readers find it; rows of lists are walked with the arrow keys.

const element = (name, properties = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key in made && key !== "list") made[key] = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
};

const isolated = (text, kind) => element("bdi", { className: kind, textContent: text });

function render({ model, el }) {
  const send = (what, more = {}) => model.send({ do: what, ...more });
  const id = `picker-${Math.random().toString(36).slice(2)}`;
  el.classList.add("playlist-picker");
  el.setAttribute("data-lm-suppress-shortcuts", "true"); // JupyterLab would cut the cell at an x

  // --- parts that stay, so that focus and live regions survive every change -----------------------------------------
  const status = element("div", { className: "status", role: "status" });
  const title = element("bdi", { className: "title" });
  const about = element("span", { className: "about" });
  const read = element("div", { className: "read", hidden: true });
  const playlist = element("ol", { className: "rows playlist" });
  const hint = element("p", { className: "hint" });
  const bars = element("p", { className: "bars" });
  const answers = [0, 1].map(() => answerBox());
  const guessing = element("section", { className: "guess", hidden: true });
  const truth = element("p", { className: "truth" });
  const why = element("p", { className: "why", role: "status" });

  const button = (label, act, tip) => {
    const made = element("button", { type: "button", textContent: label, title: tip || "" });
    made.addEventListener("click", act);
    return made;
  };
  const buttons = {
    undo: button("Undo", () => send("undo"), "Take back the last change"),
    restart: button("Start over", () => send("restart"), "The playlist as it was picked"),
    empty: button("Empty", () => send("empty"), "Start from an empty playlist"),
    go_on: button("Continue", () => send("go_on"), "Let the model add tracks to the end"),
    csv: button("CSV", () => send("save", { kind: "csv" }), "Save the playlist as CSV, for a spreadsheet"),
    m3u: button("M3U", () => send("save", { kind: "m3u" }), "Save the playlist as M3U, for a player"),
    own: button("Your own playlist", () => toggleOwn(), "Paste or open a playlist of your own"),
    guess: button("Guess the next track", () => guess(), "Hide the answers and guess along"),
  };
  buttons.own.setAttribute("aria-expanded", "false");
  for (const kind of ["csv", "m3u"]) buttons[kind].setAttribute("aria-label", buttons[kind].title);

  const pick = combobox("Pick a playlist", "Pick a playlist: part of its name, such as rainy", "search", (row) => send("choose", { row }));
  const adder = combobox("Add a track", "Add a track: title or artist", "find", (track) => send("add", { track }));

  const choice = (label, act) => {
    const made = element("select", { "aria-label": label });
    made.addEventListener("change", act);
    return made;
  };
  const settings = {
    steps: number("How many tracks Continue adds", "steps", 1, 50, 1),
    shown: number("Show", "shown", 1, 20, 1),
    seen: number("Models see the newest", "seen", 1, 1, 1),
    temperature: number("Temperature", "temperature", 0, 2, 0.1),
  };
  const draw = choice("Bars show", () => send("turn", { settings: { draw: draw.value } }));
  const heads = element("table", { className: "heads" });
  const control = element("p");

  const pasted = element("textarea", {
    rows: 4, placeholder: "Artist - Title, one a line; or Spotify links; or the text of a CSV or M3U file",
    "aria-label": "Your playlist as text",
  });
  const file = element("input", { type: "file", accept: ".csv,.m3u,.m3u8,.txt,.tsv", "aria-label": "Open a file" });
  const take = button("Read it", () => pasted.value.trim() && send("paste", { text: pasted.value }));
  file.addEventListener("change", async () => {
    if (file.files[0]) send("paste", { text: await file.files[0].text() });
    file.value = "";
  });
  const own = element("section", { className: "own", hidden: true, "aria-label": "Your own playlist" }, pasted,
    element("div", { className: "line" }, take, file));

  const curious = element("details", { className: "curious" },
    element("summary", { textContent: "For the curious" }),
    element("div", { className: "line" }, settings.shown.box, settings.seen.box, settings.temperature.box, element("label", {}, "Bars show ", draw)),
    control, heads);

  el.append(
    element("div", { className: "line top" }, pick.box, buttons.own, buttons.guess),
    own, read,
    element("div", { className: "columns" },
      element("section", { className: "mine", "aria-label": "The playlist" },
        element("h3", {}, title, " ", about), playlist, hint),
      guessing, answers[0].box, answers[1].box),
    element("div", { className: "line" }, adder.box, buttons.go_on, settings.steps.input, buttons.undo, buttons.restart,
      buttons.empty, buttons.csv, buttons.m3u),
    status,
    truth, why, bars, curious,
  );

  // --- parts that are made more than once ------------------------------------------------------------------------------

  function number(label, setting, min, max, step) {
    const input = element("input", { type: "number", min, max, step, "aria-label": label, title: label });
    // Not while somebody types: "12" must not first become 1.
    input.addEventListener("change", () => {
      const most = Number(input.max);
      const value = Math.min(most, Math.max(min, Number(input.value) || min));
      input.value = value;
      send("turn", { settings: { [setting]: setting === "seen" && value === most ? 0 : value } });
    });
    return { input, box: element("label", {}, `${label} `, input) };
  }

  function answerBox() {
    const select = element("select", {});
    select.addEventListener("change", () => send("compare", { model: answers[0].select.value, beside: answers[1].select.value }));
    const about = element("span", { className: "about" });
    const rows = element("ol", { className: "rows next" });
    const note = element("p", { className: "note" });
    const box = element("section", { className: "answer" }, element("h3", {}, select, " ", about), rows, note);
    return { box, select, about, rows, note };
  }

  // A field with a list of matches under it: arrow keys choose, Enter takes the chosen or the first one.
  function combobox(label, hint, question, act) {
    const input = element("input", {
      type: "search", placeholder: hint, role: "combobox", autocomplete: "off",
      "aria-label": label, "aria-expanded": "false", "aria-autocomplete": "list", "aria-controls": `${id}-${question}`,
    });
    const list = element("ul", { id: `${id}-${question}`, role: "listbox", hidden: true, "aria-label": `${label}: matches` });
    const said = element("span", { className: "said", role: "status" });
    let rows = [], at = -1, waiting = false;
    const close = () => { list.hidden = true; at = -1; input.setAttribute("aria-expanded", "false"); input.removeAttribute("aria-activedescendant"); };
    const choose = (i) => {
      if (!rows[i]) return;
      const chosen = rows[i].row;
      rows = []; input.value = ""; said.textContent = ""; close();
      act(chosen);
    };
    const mark = (to) => {
      at = to;
      [...list.children].forEach((child, i) => child.setAttribute("aria-selected", String(i === at)));
      if (list.children[at]) {
        input.setAttribute("aria-activedescendant", list.children[at].id);
        list.children[at].scrollIntoView({ block: "nearest" });
      }
    };
    input.addEventListener("input", () => {
      waiting = false; rows = [];
      if (input.value.trim()) send(question, { query: input.value });
      else { said.textContent = ""; close(); }
    });
    input.addEventListener("focus", () => { if (question === "search" && !input.value) send(question, { query: "" }); });
    input.addEventListener("blur", () => { close(); said.textContent = ""; });
    input.addEventListener("keydown", (event) => {
      const open = !list.hidden && rows.length;
      if (event.key === "ArrowDown" && open) { mark((at + 1) % rows.length); event.preventDefault(); }
      else if (event.key === "ArrowUp" && open) { mark((at - 1 + rows.length) % rows.length); event.preventDefault(); }
      else if (event.key === "Escape") close();
      else if (event.key === "Enter" && !event.shiftKey) {
        event.preventDefault();
        if (open) choose(Math.max(at, 0));
        else if (input.value.trim()) waiting = true; // the answer is on its way: take its first match
      }
    });
    const show = (message) => {
      if (message.query !== input.value || document.activeElement !== input) return;
      rows = message.rows;
      list.replaceChildren(...rows.map((one, i) => {
        const item = element("li", { id: `${id}-${question}-${i}`, role: "option", "aria-selected": "false" },
          isolated(one.label, "track"), " ", isolated(one.by, "artist"));
        item.addEventListener("mousedown", (event) => { event.preventDefault(); choose(i); });
        return item;
      }));
      list.hidden = !rows.length;
      input.setAttribute("aria-expanded", String(rows.length > 0));
      if (!rows.length) { said.textContent = `nothing found for “${message.query}”`; close(); }
      else said.textContent = question === "search" ? `${message.total.toLocaleString("en")} found` : "";
      if (waiting && rows.length) { waiting = false; choose(0); }
    };
    return { box: element("div", { className: "combobox" }, input, list, said), input, show };
  }

  // Rows of a list: one of them can be tabbed to, arrow keys walk to the others.
  function walkable(list) {
    list.addEventListener("keydown", (event) => {
      const rows = [...list.querySelectorAll(":scope > li")];
      const at = rows.findIndex((one) => one.contains(document.activeElement));
      const go = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[event.key];
      if (at < 0 || go === undefined || event.altKey) return;
      event.preventDefault();
      if (rows[go]) { rove(list, go); rows[go].querySelector("button").focus(); }
    });
    list.addEventListener("focusin", (event) => {
      const rows = [...list.querySelectorAll(":scope > li")];
      rove(list, rows.findIndex((one) => one.contains(event.target)));
    });
  }
  function rove(list, at) {
    [...list.querySelectorAll(":scope > li")].forEach((one, i) =>
      one.querySelectorAll("button").forEach((b) => { b.tabIndex = i === at ? 0 : -1; }));
    list.dataset.at = at;
  }
  [playlist, answers[0].rows, answers[1].rows].forEach(walkable);

  const names = (one) => element("span", { className: "names", title: [one.track, one.artist, one.album].filter(Boolean).join(" · ") },
    isolated(one.track, "track"), ...(one.artist ? [" ", isolated(one.artist, "artist")] : []));

  function fill(list, rows) {
    // Whatever row and button had the focus has it afterwards: the list is drawn anew, the reader is not thrown out.
    const held = list.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    const scroll = list.scrollTop;
    list.replaceChildren(...rows);
    list.scrollTop = scroll;
    const at = Math.min(Number(list.dataset.at || 0), rows.length - 1);
    rove(list, Math.max(at, 0));
    if (held !== null) {
      const kind = held.split(" ")[0];
      const again = list.querySelector(`[data-key="${CSS.escape(held)}"]`) || rows[at]?.querySelector(`[data-key^="${kind}"]`);
      (again || pick.input).focus({ preventScroll: true });
    }
  }

  // --- drawing ------------------------------------------------------------------------------------------------------------

  function drawView() {
    const view = model.get("view");
    title.textContent = view.title;
    about.textContent = [view.count, view.changed ? "changed" : "", view.unseen].filter(Boolean).join(" · ");
    hint.textContent = view.hint;
    hint.hidden = !view.hint;
    status.textContent = view.status;
    truth.textContent = view.truth;
    for (const [name, allowed] of Object.entries(view.can)) if (buttons[name]) buttons[name].disabled = !allowed;
    buttons.csv.disabled = buttons.m3u.disabled = !view.can.save;
    drawPlaylist(view, model.get("reasons"));
    drawRound(view);
    drawRead(view.read);
    answers.forEach((one, i) => {
      const answer = view.answers[i];
      options(one.select, i ? ["nothing", ...view.models] : view.models, i ? view.beside : view.model);
      one.select.setAttribute("aria-label", i ? "Model beside it" : "Model");
      one.box.hidden = Boolean(view.round);
      one.box.classList.toggle("absent", i === 1 && !answer);
      one.about.textContent = answer?.unit || "";
      one.note.textContent = answer?.note || "";
      fill(one.rows, (answer?.rows || []).map((each) => nextRow(each)));
    });
    for (const name of ["steps", "shown", "temperature"]) settings[name].input.value = view.settings[name];
    const length = view.playlist.length;
    settings.seen.input.max = Math.max(1, length);
    settings.seen.input.value = view.settings.seen ? Math.min(view.settings.seen, length) : Math.max(1, length);
    settings.seen.input.disabled = !length;
    options(draw, view.draws.map((pair) => pair[0]), view.settings.draw, Object.fromEntries(view.draws));
  }

  function options(select, values, chosen, labels = {}) {
    if ([...select.options].map((o) => o.value).join("\n") !== values.join("\n"))
      select.replaceChildren(...values.map((value) => element("option", { value, textContent: labels[value] || value })));
    select.value = values.includes(chosen) ? chosen : values[0];
  }

  function drawPlaylist(view, reasons) {
    fill(playlist, view.playlist.map((one, i) => {
      const reason = reasons.rows?.[i] || { bar: 0, number: "", note: "" };
      const ask = element("button", { type: "button", className: "name", "data-key": `name ${i} ${one.id}`,
        "aria-label": `${i + 1}. ${one.track}${one.artist ? `, ${one.artist}` : ""}${one.added ? ", added" : ""}` +
          `${reason.number ? `, ${reason.number} without it` : ""}${reason.note ? `, ${reason.note}` : ""}` },
        element("span", { className: "place", textContent: `${i + 1}${one.added ? "+" : ""}` }), names(one),
        element("span", { className: "number", textContent: reason.note || reason.number }));
      ask.addEventListener("click", () => send("ask", { track: reasons.asked || 0, row: i }));
      ask.addEventListener("keydown", (event) => {
        const to = event.altKey ? { ArrowUp: i - 1, ArrowDown: i + 1 }[event.key] : undefined;
        if (to !== undefined) { event.preventDefault(); playlist.dataset.at = to; send("move", { at: i, to }); }
        else if (event.key === "Delete" || event.key === "Backspace") send("remove", { at: i });
      });
      const remove = element("button", { type: "button", className: "small", textContent: "×", title: "Remove",
        "aria-label": `Remove ${one.track}`, "data-key": `remove ${i} ${one.id}` });
      remove.addEventListener("click", () => send("remove", { at: i }));
      const up = element("button", { type: "button", className: "small move", textContent: "↑", title: "Move up (Alt+↑)",
        "aria-label": `Move ${one.track} up`, "data-key": `up ${i} ${one.id}`, disabled: i === 0 });
      up.addEventListener("click", () => { playlist.dataset.at = i - 1; send("move", { at: i, to: i - 1 }); });
      const down = element("button", { type: "button", className: "small move", textContent: "↓", title: "Move down (Alt+↓)",
        "aria-label": `Move ${one.track} down`, "data-key": `down ${i} ${one.id}`, disabled: i === view.playlist.length - 1 });
      down.addEventListener("click", () => { playlist.dataset.at = i + 1; send("move", { at: i, to: i + 1 }); });
      const item = element("li", { draggable: true }, ask, up, down, remove);
      item.classList.toggle("unused", Boolean(reason.note));
      item.classList.toggle("against", reason.bar < 0);
      item.style.setProperty("--bar", `${(100 * Math.min(1, Math.abs(reason.bar))).toFixed(1)}%`);
      item.addEventListener("dragstart", (event) => event.dataTransfer.setData("text/plain", String(i)));
      item.addEventListener("dragover", (event) => event.preventDefault());
      item.addEventListener("drop", (event) => {
        event.preventDefault();
        const at = Number(event.dataTransfer.getData("text/plain"));
        if (Number.isInteger(at)) send("move", { at, to: i });
      });
      return item;
    }));
    // Another playlist, or a track more: show the newest end. Once it has been laid out, or there is nothing to scroll.
    const [before, now] = [Number(playlist.dataset.length || 0), view.playlist.length];
    if (view.title !== playlist.dataset.title || now > before) requestAnimationFrame(() => { playlist.scrollTop = playlist.scrollHeight; });
    playlist.dataset.title = view.title;
    playlist.dataset.length = now;
  }

  function nextRow(one) {
    const said = `${one.rank}. ${one.track}${one.artist ? `, ${one.artist}` : ""}${one.number ? `, ${one.number}` : ""}${one.next ? ", really next" : ""}`;
    const ask = element("button", { type: "button", className: "name", "aria-label": `${said}: why?`, "data-key": `ask ${one.id}` },
      element("span", { className: "place", textContent: one.next ? `★ ${one.rank}` : one.rank }), names(one),
      element("span", { className: "number", textContent: one.number }));
    ask.addEventListener("click", () => send("ask", { track: one.id, row: -1 }));
    const add = element("button", { type: "button", className: "small", textContent: "+", title: "Add to the playlist",
      "aria-label": `Add ${one.track}`, "data-key": `add ${one.id}` });
    add.addEventListener("click", () => send("add", { track: one.id }));
    const item = element("li", { "data-id": one.id }, ask, add);
    item.classList.toggle("really", one.next);
    item.style.setProperty("--bar", `${(100 * one.bar).toFixed(1)}%`);
    return item;
  }

  function drawReasons() {
    const reasons = model.get("reasons"), view = model.get("view");
    drawPlaylist(view, reasons);
    why.textContent = reasons.sentence || "";
    bars.textContent = reasons.bars ? `Bars and numbers in the playlist: ${reasons.bars}.` : "";
    el.querySelectorAll(".next li").forEach((item) => item.classList.toggle("asked", Number(item.dataset.id) === reasons.asked));
    control.textContent = reasons.control || "";
    const cells = (kind, words) => element("tr", {}, ...words.map((word) => element(kind, { textContent: word })));
    heads.replaceChildren(...(reasons.heads?.length
      ? [element("thead", {}, cells("th", ["block.head", "looks most at", "weight", "shuffled"])),
         element("tbody", {}, ...reasons.heads.map((one) => cells("td", one)))] : []));
  }

  function drawRound(view) {
    const one = view.round;
    guessing.hidden = !one;
    buttons.guess.textContent = one ? "Stop guessing" : "Guess the next track";
    buttons.guess.disabled = !one && !view.can.guess;
    if (!one) return guessing.replaceChildren();
    const held = guessing.contains(document.activeElement);
    const rows = one.choices.map((choice) => {
      const made = element("button", { type: "button", className: "name", disabled: one.over, "data-id": choice.id },
        names(choice), element("span", { className: "number", textContent: [choice.next ? "★ came next" : "", ...choice.picked].filter(Boolean).join(", ") }));
      made.addEventListener("click", () => send("guess", { track: choice.id }));
      const item = element("li", {}, made);
      item.classList.toggle("really", choice.next);
      return item;
    });
    const again = button("Another playlist", () => send("another"));
    guessing.replaceChildren(
      element("h3", { textContent: one.over ? "What came next" : "Which of these came next?" }),
      element("p", { className: "about", textContent: "One is the real next track; nine were drawn by how often they are played." }),
      element("ol", { className: "rows choices" }, ...rows),
      element("p", { className: "score", textContent: one.score }),
      ...(one.over ? [again] : []));
    if (held) (one.over ? again : guessing.querySelector("button"))?.focus({ preventScroll: true });
  }
  const guess = () => send(model.get("view").round ? "stop_guessing" : "guess_next");

  function toggleOwn(open = own.hidden) {
    own.hidden = !open;
    buttons.own.setAttribute("aria-expanded", String(open));
    if (open) pasted.focus();
  }

  function drawRead(found) {
    read.hidden = !found;
    if (!found) { delete read.dataset.said; return read.replaceChildren(); }
    const key = JSON.stringify(found);
    if (read.dataset.said === key) return; // only when it is new: a list that is open stays open
    read.dataset.said = key;
    toggleOwn(false);
    const missing = found.missing.map((one) => element("li", {}, isolated(one.text), ` is ${one.reason}. `,
      ...one.meant.map((meant) => {
        const made = element("button", { type: "button", "aria-label": `Add ${meant.track}` }, names(meant));
        made.addEventListener("click", () => send("add", { track: meant.id }));
        return made;
      })));
    read.replaceChildren(missing.length
      ? element("details", {}, element("summary", { textContent: `${found.said}; the others, with what may be meant` }), element("ul", {}, ...missing))
      : element("p", { textContent: `${found.said}.` }));
  }

  // --- listening ----------------------------------------------------------------------------------------------------------

  const heard = (message) => {
    if (message.found === "playlists") pick.show(message);
    else if (message.found === "tracks") adder.show(message);
    else if (message.said) status.textContent = message.said;
    else if (message.save !== undefined) {
      const link = element("a", { download: `${model.get("view").file}.${message.kind === "m3u" ? "m3u8" : "csv"}` });
      link.href = URL.createObjectURL(new Blob([message.save], { type: "text/plain;charset=utf-8" }));
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    }
  };
  const keys = (event) => {
    // JupyterLab takes letters and arrows for commands to the notebook; those with Ctrl or Cmd, and Shift+Enter, are its own.
    if (!(event.ctrlKey || event.metaKey || (event.shiftKey && event.key === "Enter"))) event.stopPropagation();
  };
  el.addEventListener("keydown", keys);
  model.on("change:view", drawView);
  model.on("change:reasons", drawReasons);
  model.on("msg:custom", heard);
  drawView();
  drawReasons();
  // While the widget lives, its twin in plain HTML need not be seen.
  const twin = () => el.closest(".jp-OutputArea, .output")?.querySelectorAll(".playlist-picker-twin")
    .forEach((one) => { (one.closest(".jp-OutputArea-child") || one).style.display = "none"; });
  twin();
  const late = setTimeout(twin, 500);
  return () => {
    clearTimeout(late);
    el.removeEventListener("keydown", keys);
    model.off("change:view", drawView);
    model.off("change:reasons", drawReasons);
    model.off("msg:custom", heard);
  };
}

export default { render };
