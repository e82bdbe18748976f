// The current state of the page, and notification of its changes.
const CALM_MS = 120;

export class State {
  #watchers = [];

  constructor(values) {
    this.values = values;
  }

  get(name) {
    return this.values[name];
  }

  set(changes) {
    const changed = Object.keys(changes).filter(
      (name) => !Object.is(this.values[name], changes[name]),
    );
    if (!changed.length) return;
    this.values = { ...this.values, ...changes };
    for (const [names, tell] of this.#watchers) {
      if (names.some((name) => changed.includes(name))) tell(this.values);
    }
  }

  toggle(name) {
    this.set({ [name]: !this.values[name] });
  }

  // Calls `tell` now, and whenever one of the names has changed.
  watch(names, tell) {
    this.#watchers.push([names, tell]);
    tell(this.values);
  }

  // The same for text, for which a few updates per second are enough while playing.
  watchCalmly(names, tell) {
    let told = 0;
    this.watch([...names, "playing"], (values) => {
      const now = performance.now();
      if (values.playing && now - told < CALM_MS) return;
      told = now;
      tell(values);
    });
  }
}

export const isHidden = (values, index) => values.hidden.includes(index);

export function toggleHidden(state, index) {
  const hidden = state.get("hidden");
  const without = hidden.filter((other) => other !== index);
  state.set({ hidden: without.length < hidden.length ? without : [...hidden, index] });
}
