// Keys, dragging and the clock of the labelling page. The form alone holds the answer: everything here only fills it,
// so that the page also works without this file, and what is seen is what is sent.
"use strict";

const work = () => document.getElementById("work");
const form = () => document.getElementById("answer");

// ---- the clock: seconds in sight, not seconds in another tab ------------------------------------------------------
let seen = 0, since = null;
function tick() {
  const now = performance.now();
  if (since !== null) seen += now - since;
  since = document.visibilityState === "visible" ? now : null;
}
function restart() { seen = 0; since = document.visibilityState === "visible" ? performance.now() : null; }
document.addEventListener("visibilitychange", tick);

// ---- groups of choices, one of them current -----------------------------------------------------------------------
const groups = () => [...document.querySelectorAll("#answer fieldset.keyed")];
function makeCurrent(group) {
  for (const each of groups()) each.classList.toggle("current", each === group);
  if (group && groups().length > 1) group.scrollIntoView({ block: "nearest" });
}
function move(by) {
  const all = groups(), at = all.findIndex((g) => g.classList.contains("current"));
  makeCurrent(all[Math.min(all.length - 1, Math.max(0, at + by))]);
}
function choose(key) {
  const group = document.querySelector("#answer fieldset.keyed.current");
  const input = group && group.querySelector(`input[data-key="${CSS.escape(key)}"]`);
  if (!input) return false;
  input.checked = true;
  input.dispatchEvent(new Event("input", { bubbles: true }));
  if (groups().length > 1) move(1); else input.focus({ preventScroll: true });
  return true;
}

// ---- ranking: chips in tiers are a picture of the selects, never the other way round ------------------------------
const chips = (group) => (group ? [...group.querySelectorAll(".chip")] : [])
  .sort((a, b) => a.dataset.letter.localeCompare(b.dataset.letter));
const boardOf = (chip) => chip.closest("fieldset");
const selectOf = (chip) => document.getElementById(chip.dataset.select);
function drawRanking() {
  for (const chip of document.querySelectorAll(".chip")) {
    const tier = boardOf(chip).querySelector(`.tier[data-rank="${selectOf(chip).value}"]`);
    if (chip.parentElement !== tier) tier.append(chip);
  }
}
function mark(chip) {
  for (const each of chips(boardOf(chip))) each.setAttribute("aria-pressed", String(each === chip));
}
function place(chip, rank) { selectOf(chip).value = rank; drawRanking(); keepDraft(); }
function rankKey(key) {
  const all = chips(document.querySelector("#answer fieldset.ranking.current"));
  if (!all.length) return false;
  const named = all.find((c) => c.dataset.letter === key);
  if (named) { mark(named); return true; }
  const marked = all.find((c) => c.getAttribute("aria-pressed") === "true");
  if (!marked || !(Number(key) >= 1 && Number(key) <= all.length)) return false;
  place(marked, key);
  const after = all.indexOf(marked) + 1;
  const open = [...all.slice(after), ...all.slice(0, after)].find((c) => !selectOf(c).value);
  if (open) mark(open); else move(1);
  return true;
}
let dragged = null;
const tierUnder = (event) => {
  const found = document.elementFromPoint(event.clientX, event.clientY);
  return found ? found.closest(".tier") : null;
};
document.addEventListener("pointerdown", (event) => {
  const chip = event.target.closest && event.target.closest(".chip");
  if (!chip || event.button !== 0) return;
  event.preventDefault();
  chip.setPointerCapture(event.pointerId);
  dragged = chip;
  mark(chip);
});
document.addEventListener("pointermove", (event) => {
  if (!dragged) return;
  dragged.classList.add("dragged");
  dragged.style.left = `${event.clientX - 18}px`;
  dragged.style.top = `${event.clientY - 18}px`;
  const under = tierUnder(event);
  for (const tier of document.querySelectorAll(".tier")) tier.classList.toggle("over", tier === under);
});
function letGo(event) {
  if (!dragged) return;
  const chip = dragged, moved = chip.classList.contains("dragged");
  const tier = event.type === "pointerup" && moved ? tierUnder(event) : null;
  dragged = null;
  chip.classList.remove("dragged");
  chip.style.left = chip.style.top = "";
  for (const each of document.querySelectorAll(".tier.over")) each.classList.remove("over");
  if (tier && boardOf(tier) === boardOf(chip)) place(chip, tier.dataset.rank);
}
document.addEventListener("pointerup", letGo);
document.addEventListener("pointercancel", letGo);

// ---- keys ---------------------------------------------------------------------------------------------------------
function unfold(id) {
  const details = document.getElementById(id);
  if (!details) return;
  details.open = !details.open;
  if (details.open) (details.querySelector("input:not([type=hidden])") || details.querySelector("summary")).focus();
}
function differ() {
  const button = document.getElementById("differences");
  if (!button) return;
  const on = document.getElementById("responses").classList.toggle("differ");
  button.setAttribute("aria-pressed", String(on));
}
const press = (id) => { const button = document.getElementById(id); if (button && !button.disabled) button.click(); };
const COMMANDS = {
  s: () => press("skip"), u: () => press("undo"), p: () => unfold("flag"), r: () => unfold("reasons"), w: () => unfold("why"),
  x: differ, "?": () => unfold("keys"), arrowdown: () => move(1), arrowup: () => move(-1),
};
const writes = (element) =>
  element.matches("textarea, select, input[type=text]");
document.addEventListener("keydown", (event) => {
  if (event.isComposing || !form()) return;
  const key = event.key.toLowerCase(), target = event.target;
  if (key === "enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); press("submit"); return; }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (key === "escape") { target.blur(); work().focus({ preventScroll: true }); return; }
  if (writes(target)) return;
  if (key === "enter") {
    if (target.closest("button, a, summary") || target.closest("#flag")) return;
    event.preventDefault();
    press("submit");
    return;
  }
  if (choose(key) || rankKey(key)) { event.preventDefault(); return; }
  if (key.startsWith("arrow") && groups().length < 2) return;
  if (COMMANDS[key]) { event.preventDefault(); COMMANDS[key](); }
});
document.addEventListener("keydown", (event) => { // the arena, which has no #answer
  if (event.isComposing || form() || event.altKey) return;
  const send = event.key === "Enter" && (event.ctrlKey || event.metaKey);
  if (send && event.target.id === "text") { event.preventDefault(); press("submit"); return; }
  if (event.ctrlKey || event.metaKey || writes(event.target)) return;
  const button = document.querySelector(`#vote button[data-key="${CSS.escape(event.key)}"]`);
  if (button) { event.preventDefault(); button.click(); }
});
document.addEventListener("click", (event) => {
  if (event.target.closest("#differences")) differ();
  const group = event.target.closest("fieldset.keyed");
  if (group) makeCurrent(group);
});
document.addEventListener("change", (event) => { if (event.target.closest(".ranks")) drawRanking(); });

// ---- drafts: a reload in the middle loses nothing -----------------------------------------------------------------
const draftKey = () => `draft ${form().elements.claim.value}`;
const drafted = (name) => !["csrf", "claim", "seconds"].includes(name);
function keepDraft() {
  if (!form()) return;
  const entered = [...new FormData(form())].filter(([name, value]) => drafted(name) && value);
  try { sessionStorage.setItem(draftKey(), JSON.stringify(entered)); } catch { /* full or forbidden: no drafts */ }
}
function dropOthers() { // of questions that were answered: a day's texts would fill what a browser grants
  for (const key of Object.keys(sessionStorage)) if (key.startsWith("draft ") && key !== draftKey()) sessionStorage.removeItem(key);
}
function bringDraft() {
  const entered = JSON.parse(sessionStorage.getItem(draftKey()) || "[]");
  for (const [name, value] of entered) {
    for (const input of form().querySelectorAll(`[name="${CSS.escape(name)}"]`)) {
      if (input.type === "radio" || input.type === "checkbox") input.checked ||= input.value === value;
      else input.value = value;
    }
  }
}
document.addEventListener("input", (event) => { if (event.target.closest("#answer")) keepDraft(); });

// ---- sending ------------------------------------------------------------------------------------------------------
document.addEventListener("submit", (event) => {
  if (event.target.matches("[data-theme-switch]") && !document.documentElement.dataset.theme) {
    event.target.elements.theme.value = matchMedia("(prefers-color-scheme: dark)").matches ? "light" : "dark";
  }
  if (event.target.id !== "answer") return;
  tick();
  event.target.elements.seconds.value = (seen / 1000).toFixed(2);
}, true);
const offline = (is) => { const line = document.getElementById("offline"); if (line) line.hidden = !is; };
document.addEventListener("htmx:error", () => offline(true));
document.addEventListener("htmx:before:request", () => { offline(false); refused(null); });
function refused(said) { // what the server said instead of a page, in its own words
  const line = document.getElementById("refused");
  if (!line) return;
  line.hidden = said === null;
  line.querySelector("span").textContent = said || "";
}
document.addEventListener("htmx:after:request", (event) => { // a refusal must not take the place of the question
  const { response, text } = event.detail.ctx, kind = response.headers.get("content-type") || "";
  if (kind.startsWith("text/html")) return;
  event.preventDefault();
  refused(kind.startsWith("application/json") ? JSON.parse(text).detail : text);
});
document.addEventListener("htmx:after:swap", begin);

// ---- a question came ----------------------------------------------------------------------------------------------
function begin() {
  restart();
  if (form()) { dropOthers(); bringDraft(); }
  drawRanking();
  for (const all of groups().map(chips).filter((c) => c.length)) mark(all.find((c) => !selectOf(c).value) || all[0]);
  const open = (group) => !group.querySelector("input:checked") && !chips(group).some((c) => selectOf(c).value);
  const first = groups().find(open);
  if (first) makeCurrent(first);
  const text = document.getElementById("text");
  if (text) text.focus(); else if (form() || document.getElementById("vote")) work().focus({ preventScroll: true });
}
if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin); else begin();
