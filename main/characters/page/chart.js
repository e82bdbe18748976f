// A quantity of a joint over time: one line per person, over the flags of the selected person.
import { cleared, cssColor, scrubs, ticks, xOf } from "./axis.js";
import { FLAGS, MEANINGS, shade } from "./flags.js";
import { QUANTITIES, Series } from "./series.js";
import { isHidden } from "./state.js";

const MARGIN_PX = 12;

export const spelled = (name) => {
  const words = name.replace("_smplhf", "").replace(/(\d)/, " $1").replaceAll("_", " ");
  return words[0].toUpperCase() + words.slice(1);
};

export class Chart {
  constructor(clip, state, player) {
    Object.assign(this, { clip, state });
    this.series = new Series(clip);
    this.lane = document.querySelector(".chart .lane");
    this.canvas = this.lane.querySelector("canvas");
    this.#fillChoices();
    this.#tellFlags();
    scrubs(this.lane, clip.frames, (frame) => player.seek(frame));
    new ResizeObserver(() => this.draw()).observe(this.lane);
    const shown = ["joint", "quantity", "hidden", "colors", "selected", "motion", "dark"];
    state.watch(shown, () => this.draw());
    state.watch(shown, (values) => this.#tellValues(values));
    state.watchCalmly(["frame"], (values) => this.#tellValues(values));
  }

  #fillChoices() {
    const joint = document.getElementById("joint");
    const quantity = document.getElementById("quantity");
    const groups = { Body: [0, 22], Face: [22, 25], "Left hand": [25, 40], "Right hand": [40, 55] };
    for (const [label, [from, to]] of Object.entries(groups)) {
      const group = document.createElement("optgroup");
      group.label = label;
      for (let j = from; j < to; j++) group.append(new Option(spelled(this.clip.joints[j]), j));
      joint.append(group);
    }
    for (const [name, { label }] of Object.entries(QUANTITIES)) {
      quantity.append(new Option(label, name));
    }
    joint.addEventListener("change", () => this.state.set({ joint: Number(joint.value) }));
    quantity.addEventListener("change", () => this.state.set({ quantity: quantity.value }));
    this.state.watch(["joint", "quantity"], (values) => {
      joint.value = values.joint;
      quantity.value = values.quantity;
    });
  }

  #tellFlags() {
    document.getElementById("legend").append(
      ...Object.entries(FLAGS).map(([flag, label]) => {
        const item = document.createElement("li");
        const mark = document.createElement("i");
        mark.style.background =
          flag === "interpolated"
            ? `repeating-linear-gradient(135deg, var(--${flag}) 0 1.5px, transparent 1.5px 4px)`
            : `var(--${flag})`;
        item.title = MEANINGS[flag];
        item.append(mark, label);
        return item;
      }),
    );
  }

  // The lines to draw: person, colour, values, faint.
  lines({ joint, quantity, hidden, colors, selected, motion }) {
    const lines = [];
    this.clip.people.forEach((person, index) => {
      if (hidden.includes(index)) return;
      const add = (kind, faint) =>
        lines.push({
          person,
          kind,
          faint,
          color: colors[index],
          selected: index === selected,
          values: this.series.of(person, kind, joint, quantity),
        });
      if (motion === "both" && person.raw) add("raw", true);
      add(motion === "raw" && person.raw ? "raw" : "smoothed", false);
    });
    return lines.sort((a, b) => b.faint - a.faint || a.selected - b.selected);
  }

  draw() {
    const drawing = cleared(this.canvas);
    if (!drawing) return;
    const { context, width, height } = drawing;
    const { values } = this.state;
    const selected = this.clip.people[values.selected];
    if (!isHidden(values, values.selected)) {
      shade(context, selected, this.clip.frames, width, height);
    }
    const lines = this.lines(values);
    const range = rangeOf(lines, QUANTITIES[values.quantity].floor);
    const y = (value) =>
      height - MARGIN_PX - ((value - range.low) / (range.high - range.low)) * (height - 2 * MARGIN_PX);
    this.#drawGrid(context, width, range, y);
    for (const line of lines) this.#drawLine(context, width, line, y);
    this.#drawLabels(context, range, y);
  }

  #drawGrid(context, width, range, y) {
    context.fillStyle = cssColor("line");
    for (const tick of ticks(range.low, range.high, 4)) {
      context.fillRect(0, Math.round(y(tick)), width, 1);
    }
  }

  #drawLabels(context, range, y) {
    const { unit } = QUANTITIES[this.state.get("quantity")];
    context.font = "11px system-ui, sans-serif";
    context.lineWidth = 3;
    context.strokeStyle = cssColor("panel");
    context.fillStyle = cssColor("quiet");
    for (const tick of ticks(range.low, range.high, 4)) {
      const text = `${Number(tick.toFixed(3))}${unit === "°" ? "" : " "}${unit}`;
      context.strokeText(text, 6, y(tick) - 4);
      context.fillText(text, 6, y(tick) - 4);
    }
  }

  #drawLine(context, width, { values, color, faint, selected }, y) {
    context.strokeStyle = color;
    context.lineJoin = "round";
    context.globalAlpha = faint ? 0.45 : 1;
    context.lineWidth = faint ? 1 : selected ? 2.2 : 1.4;
    context.beginPath();
    let drawing = false;
    values.forEach((value, frame) => {
      const there = Number.isFinite(value);
      if (there) {
        const at = [xOf(frame, values.length, width), y(value)];
        if (drawing) context.lineTo(...at);
        else context.moveTo(...at);
      }
      drawing = there;
    });
    context.stroke();
    context.globalAlpha = 1;
  }

  #tellValues(values) {
    const { unit, digits } = QUANTITIES[values.quantity];
    const list = document.getElementById("values");
    const said = (value) => (Number.isFinite(value) ? value.toFixed(digits) : "–");
    const ending = unit === "°" ? unit : `\u2009${unit}`;
    const byPerson = new Map();
    for (const { person, kind, color, values: series } of this.lines(values)) {
      const entry = byPerson.get(person) ?? { color };
      byPerson.set(person, Object.assign(entry, { [kind]: said(series[values.frame]) }));
    }
    const people = [...byPerson].sort(([a], [b]) => a.number - b.number);
    while (list.children.length < people.length) {
      const item = document.createElement("li");
      item.innerHTML = "<i></i><span></span><b></b><em></em>";
      list.append(item);
    }
    while (list.children.length > people.length) list.lastChild.remove();
    people.forEach(([person, { color, smoothed, raw }], k) => {
      const [mark, name, main, other] = list.children[k].children;
      mark.style.background = color;
      name.textContent = `Person ${person.number}`;
      main.textContent = `${smoothed ?? raw}${ending}`;
      other.textContent = smoothed && raw ? `raw ${raw}` : "";
    });
  }
}

function rangeOf(lines, floor) {
  let low = Infinity;
  let high = -Infinity;
  for (const { values } of lines) {
    for (const value of values) {
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  if (low > high) return { low: 0, high: 1 };
  low = floor ?? low;
  if (high - low < 1e-3) high = low + 1;
  return { low, high };
}
