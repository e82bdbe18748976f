// The keyboard, and the help panel.
import { FLAGS, MEANINGS } from "./flags.js";
import { toggleHidden } from "./state.js";

const next = (values, value) => values[(values.indexOf(value) + 1) % values.length];

export function listenToKeys(clip, state, { transport, player, scene, options }) {
  const second = Math.round(clip.fps);
  const turn = (name) => state.set({ [name]: next(options(name), state.get(name)) });
  const actions = {
    " ": () => player.toggle(),
    k: () => player.toggle(),
    ArrowLeft: (event) => player.step(event.shiftKey ? -second : -1),
    ArrowRight: (event) => player.step(event.shiftKey ? second : 1),
    Home: () => player.step(-Infinity),
    End: () => player.step(Infinity),
    ArrowUp: () => transport.faster(1),
    ArrowDown: () => transport.faster(-1),
    l: () => state.toggle("loop"),
    m: () => state.toggle("sound"),
    c: () => turn("view"),
    b: () => turn("surface"),
    r: () => turn("motion"),
    s: () => state.toggle("skeleton"),
    g: () => state.toggle("floor"),
    v: () => state.toggle("follow"),
    f: () => scene.focus(),
    0: () => scene.views.reset(),
    d: () => state.toggle("dark"),
    "?": () => document.getElementById("help").showModal(),
  };
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("select, input, dialog")) return;
    if (event.key === " " && event.target.closest("button, a")) return;
    const index = Number(event.key) - 1;
    const act = actions[event.key] ?? actions[event.key.toLowerCase()];
    if (act) act(event);
    else if (index >= 0 && index < clip.people.length) toggleHidden(state, index);
    else return;
    event.preventDefault();
  });
  // A clicked button releases the focus, so that Space plays.
  addEventListener("click", (event) => {
    if (event.detail) event.target.closest("button")?.blur();
  });
}

const KEYS = [
  ["Space", "play or pause"],
  ["← →", "a frame; with Shift a second"],
  ["Home End", "first, last frame"],
  ["↑ ↓", "faster, slower"],
  ["L M", "loop, sound"],
  ["C", "free view, camera, on the picture"],
  ["B", "clothes, body, no surface"],
  ["R", "smoothed, raw, both"],
  ["S G", "skeleton, ground"],
  ["F V", "look at the selected person, follow"],
  ["0", "the view at the beginning"],
  ["1 … 9", "show or hide a person"],
  ["D", "dark or light"],
];

export function fillHelp(clip) {
  const dialog = document.getElementById("help");
  const content = dialog.querySelector(".content");
  const list = (entries, tag) => {
    const rows = entries.flatMap(([name, meaning]) => {
      const term = document.createElement("dt");
      const names = tag === "kbd" ? name.split(" ") : [name];
      for (const one of names) {
        term.append(Object.assign(document.createElement(tag), { textContent: one }), " ");
      }
      return [term, Object.assign(document.createElement("dd"), { textContent: meaning })];
    });
    const whole = document.createElement("dl");
    whole.append(...rows);
    return whole;
  };
  const title = (text) => Object.assign(document.createElement("h3"), { textContent: text });
  const about = [
    ["Model", `${clip.model ?? "unknown"}, body: ${clip.body}`],
    ["Space", clip.floor ? "upright on the estimated floor" : "upright as the camera is; the ground is where most feet are"],
    ["Camera", `focal length ${Math.round(clip.focal[0])} px of ${clip.size[0]} × ${clip.size[1]}${clip.camera ? ` (${clip.camera})` : ""}`],
    ["Smoothed", clip.smoothed ? "the result: one shape a person, smoothed over time" : "the result: one shape a person; smoothing was off"],
    ["Raw", "the network's pose of each frame, placed in the clip's camera, on the same shape"],
    ["Left out", "pose correctives of the body, and joints beyond a vertex' four strongest"],
    ["Licence", `the body: ${clip.licence}; three.js: MIT`],
  ];
  content.append(
    title("Keyboard"), list(KEYS, "kbd"),
    title("Mouse and touch"),
    list([
      ["Drag", "turn the scene"],
      ["Wheel, pinch", "zoom"],
      ["Right button, two fingers", "move"],
      ["Click a person", "select; with the skeleton shown, chart that joint"],
      ["Drag on ruler, lane, chart", "scrub"],
    ], "span"),
    title("Shading"), list(Object.keys(FLAGS).map((flag) => [FLAGS[flag], MEANINGS[flag]]), "span"),
    title("What is shown"), list(about, "span"),
  );
  document.getElementById("help-open").addEventListener("click", () => dialog.showModal());
}
