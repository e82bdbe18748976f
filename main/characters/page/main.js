// The page: reads the clip, builds its parts, and connects the controls to the state.
import { Chart } from "./chart.js";
import { clock } from "./axis.js";
import { Downloads } from "./downloads.js";
import { People } from "./people.js";
import { Picture } from "./picture.js";
import { Player } from "./player.js";
import { Scene } from "./scene.js";
import { State } from "./state.js";
import { Transport } from "./transport.js";
import { fillHelp, listenToKeys } from "./keys.js";
import { readClip } from "./data.js";

const THEME = "people-viewer-theme";

// Pages on the disk may have no access to local storage.
function remembered() {
  try {
    return localStorage.getItem(THEME);
  } catch {
    return null;
  }
}

function remember(theme) {
  try {
    localStorage.setItem(THEME, theme);
  } catch {
    // The next visit starts with the setting of the system.
  }
}

function initialState(clip) {
  const wish = remembered();
  return new State({
    frame: 0,
    playing: false,
    speed: 1,
    loop: true,
    sound: true,
    view: "orbit",
    surface: clip.template.uncovered ? "clothes" : "body",
    skeleton: false,
    motion: "smoothed",
    floor: true,
    follow: false,
    picture: 0,
    selected: 0,
    hidden: [],
    colors: clip.people.map(({ color }) => color),
    joint: clip.joints.indexOf("right_wrist"),
    quantity: clip.frames > 1 ? "speed" : "angle",
    dark: wish ? wish === "dark" : !matchMedia("(prefers-color-scheme: light)").matches,
  });
}

function wireTheme(state) {
  const first = state.get("dark");
  let chosen = false;
  state.watch(["dark"], ({ dark }) => {
    document.documentElement.className = dark ? "dark" : "light";
    chosen ||= dark !== first;
    if (chosen) remember(dark ? "dark" : "light");
  });
}

// Buttons that choose one of several values, and toggles.
function wireButtons(clip, state) {
  for (const group of document.querySelectorAll("[data-choose]")) {
    const name = group.dataset.choose;
    if (name === "surface" && !clip.template.uncovered) group.querySelector("[value=clothes]").remove();
    if (name === "motion" && !clip.people.some(({ raw }) => raw)) group.remove();
    for (const button of group.children) {
      button.addEventListener("click", () => state.set({ [name]: button.value }));
    }
    state.watch([name], (values) => {
      for (const button of group.children) {
        button.setAttribute("aria-pressed", button.value === values[name]);
      }
    });
  }
  for (const button of document.querySelectorAll("[data-toggle]")) {
    const name = button.dataset.toggle;
    button.addEventListener("click", () => state.toggle(name));
    state.watch([name], (values) => button.setAttribute("aria-pressed", values[name]));
  }
}

function options(name) {
  const buttons = document.querySelectorAll(`[data-choose=${name}] button`);
  const values = Array.from(buttons, (button) => button.value);
  return values.length ? values : ["smoothed"];
}

function tellFacts(clip) {
  document.querySelector("h1").textContent = clip.name;
  const people = `${clip.people.length} ${clip.people.length === 1 ? "person" : "people"}`;
  const time = clip.frames > 1 ? [`${Number(clip.fps.toFixed(2))} fps`, clock(clip.frames, clip.fps)] : [];
  const facts = [people, clip.size.join(" × "), ...time, clip.model && `model ${clip.model}`];
  document.getElementById("facts").textContent = facts.filter(Boolean).join("  ·  ");
  document.documentElement.style.setProperty("--picture", clip.size.join(" / "));
}

async function start() {
  const clip = await readClip();
  const state = initialState(clip);
  wireTheme(state);
  tellFacts(clip);
  wireButtons(clip, state);
  document.body.classList.toggle("still", clip.frames < 2);
  state.watch(["view"], ({ view }) => {
    document.body.dataset.view = view;
  });
  const player = new Player(clip, state);
  const scene = new Scene(clip, state, document.querySelector(".scene .screen"));
  new People(clip, state, player);
  const chart = new Chart(clip, state, player);
  const transport = new Transport(clip, state, player);
  new Downloads(clip, state, chart, scene);
  fillHelp(clip);
  document.getElementById("focus").addEventListener("click", () => scene.focus());
  document.getElementById("home").addEventListener("click", () => scene.views.reset());
  listenToKeys(clip, state, { transport, player, scene, options });
  await new Picture(clip, state, player).start();
  window.viewer = { clip, state, player, scene, chart }; // for debugging in the console
  document.body.removeAttribute("aria-busy");
}

start().catch((error) => {
  const box = document.getElementById("wrong");
  box.textContent = `This page cannot be shown here: ${error.message ?? error}`;
  box.hidden = false;
  throw error;
});
