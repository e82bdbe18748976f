// The page of the app. The server has all state; the page polls it, so that it may be closed and
// opened at any time, and in several browsers at once.
const $ = (selector) => document.querySelector(selector);
const $$ = (selector) => [...document.querySelectorAll(selector)];
const COLOURS = ["#ffb000", "#5ad1ff", "#8ee36b", "#ff86b5", "#c7a3ff", "#ffe45e"];
const KINDS = { find: "Finding people", trial: "Trying two seconds", run: "Running", again: "Making the result again", export: "Exporting" };
const SOON_MS = 500, LATER_MS = 3000;

let about, jobs = [], job, found, choice, shown = {};

function element(tag, values = {}, ...children) {
  const made = Object.assign(document.createElement(tag), values);
  made.append(...children);
  return made;
}

// The JSON of the answer; throws an Error with the server's message if it refuses.
async function ask(method, path, body) {
  let answer;
  try {
    answer = await fetch(`/api/${path}`, { method, body: body && JSON.stringify(body) });
  } catch {
    throw new Error("the app does not answer; is it still running?");
  }
  const content = answer.status === 204 ? null : await answer.json();
  if (!answer.ok) throw new Error(content.error);
  return content;
}

const fileOf = (name) => `/files/${job.id}/${name.split("/").map(encodeURIComponent).join("/")}`;
const megabytes = (bytes) => (bytes < 1e5 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

// Shows a message beside the control whose flag it begins with, or else at `place`.
function complain(message, place) {
  const flag = message.match(/^(?:argument )?(--[a-z-]+)/)?.[1];
  const control = flag && (controlOf(flag) ?? $(`[data-for="${flag}"]`));
  let spot = place;
  if (control?.classList.contains("error")) spot = control;
  else if (control) {
    spot = element("span", { className: "error added", role: "alert" });
    control.closest("details")?.setAttribute("open", "");
    control.after(spot);
    control.setAttribute("aria-invalid", "true");
    control.focus();
  }
  spot.textContent = message;
  spot.scrollIntoView({ block: "nearest" });
}

function calm() {
  $$(".error.added").forEach((one) => one.remove());
  $$("[aria-invalid]").forEach((one) => one.removeAttribute("aria-invalid"));
  $$(".error").forEach((one) => (one.textContent = ""));
}

async function attempt(action, place) {
  calm();
  try {
    await action();
  } catch (error) {
    complain(error.message, place);
  }
  await refresh();
}

// A new job.

async function upload(file) {
  if (!file) return;
  const limit = about.limit_mb * 1e6;
  await attempt(async () => {
    if (file.size > limit) {
      throw new Error(`${file.name} is larger than ${about.limit_mb} MB; shorten it, or start the app with --limit-mb`);
    }
    open((await send(file)).id);
  }, $("#start-error"));
  $("#file").value = "";
}

// Shows the progress, which fetch does not report.
function send(file) {
  const [bar, request] = [$("#uploading"), new XMLHttpRequest()];
  bar.hidden = false;
  return new Promise((resolve, reject) => {
    request.open("POST", `/api/jobs?name=${encodeURIComponent(file.name)}`);
    request.responseType = "json";
    request.upload.onprogress = (event) => (bar.value = event.loaded / event.total);
    request.onload = () =>
      request.status === 201 ? resolve(request.response) : reject(new Error(request.response?.error ?? "refused"));
    request.onerror = () => reject(new Error("the upload was interrupted"));
    request.onloadend = () => (bar.hidden = true);
    request.send(file);
  });
}

function open(id) {
  location.hash = id ?? "";
}

async function turn() {
  job = found = choice = undefined;
  shown = {};
  calm();
  $("#job").hidden = true;
  $("#start").hidden = location.hash.length > 1;
  await refresh();
}

// Polling.

let timer;
async function refresh() {
  clearTimeout(timer);
  const id = location.hash.slice(1);
  try {
    jobs = await ask("GET", "jobs");
    if (changed("jobs", [jobs, id])) listJobs(id);
    if (jobs.some((one) => one.id === id)) {
      const answer = await ask("GET", `jobs/${id}`);
      if (location.hash.slice(1) === id) await show(answer);
    } else if (id) open(); // deleted in another browser
  } catch (error) {
    (job ? $("#job-error") : $("#start-error")).textContent = error.message;
  }
  clearTimeout(timer);
  const busy = jobs.some(({ state }) => state === "running" || state === "queued");
  timer = setTimeout(refresh, busy ? SOON_MS : LATER_MS);
}

function changed(name, value) {
  const text = JSON.stringify(value);
  const differs = shown[name] !== text;
  shown[name] = text;
  return differs;
}

function listJobs(current) {
  const focused = document.activeElement?.dataset?.job;
  $("#jobs").replaceChildren(
    ...jobs.map((one) => {
      const picture = one.picture
        ? element("img", { src: `/files/${one.id}/${one.picture}`, alt: "" })
        : element("span", { className: "none" });
      const state = one.state === "done" && one.has_result ? "finished" : (one.state ?? "new");
      const text = element("span", {}, one.name, element("small", {}, `${state}, ${megabytes(one.bytes)}`));
      const button = element("button", { type: "button", onclick: () => open(one.id) }, picture, text);
      button.dataset.job = one.id;
      button.setAttribute("aria-current", one.id === current);
      return element("li", {}, button);
    }),
  );
  if (focused) $(`[data-job="${focused}"]`)?.focus();
}

async function show(answer) {
  const first = !job;
  job = answer;
  const { task } = job;
  const active = task && ["queued", "running"].includes(task.state);
  if (first) {
    $("#title").textContent = job.name;
    choice = job.choice;
    fillOptions();
  }
  $("#job").hidden = false;
  showProgress(task, active);
  if (changed("outcome", [task?.state, task?.ended])) {
    calm();
    $("#outcome").textContent = task?.state === "cancelled" ? "Cancelled; nothing of it was kept." : "";
    if (task?.state === "failed") complain(task.error, $("#job-error"));
    if (!first && task?.kind === "find") choice = job.choice;
  }
  if (changed("log", job.log)) $("#log").textContent = job.log.join("\n");
  if (changed("command", job.command)) $("#command").textContent = job.command ?? "";
  $("#command-box").hidden = !job.command;
  $$("[data-kind], #export, #delete").forEach((one) => (one.disabled = active));
  $("[data-kind=again]").hidden = !job.has_result;
  if (changed("found", job.found)) await showFound();
  if (changed("result", [job.viewer, job.overlay, job.people, job.files])) await showResult();
  if (changed("trial", job.trial)) showTrial();
}

function showProgress(task, active) {
  $("#work").hidden = !active;
  if (!active) return;
  const now = job.progress;
  const stage = now?.stage === "Estimating" && task.kind === "find" ? "Looking at" : now?.stage;
  $("#stage").textContent = task.state === "queued" ? "Waiting for its turn" : KINDS[task.kind];
  $("#rate").textContent = now
    ? `${stage}: ${now.done}${now.total ? ` of ${now.total}` : ""} frames, ${now.rate} per second` +
      (now.left === null ? "" : `, ${now.left} s left`)
    : task.state === "running" ? "starting" : "";
  if (now?.total) $("#progress").value = Math.min(1, now.done / now.total);
  else $("#progress").removeAttribute("value");
}

// Options: names of controls are flags of the command line.

const NAMES = { "--no-refine": "--refine", "--no-overlay": "--overlay", "--floor": "--world", "--format": "--export" };
const controlOf = (flag) => $(`#options :is([name="${NAMES[flag] ?? flag}"], [data-flag="${NAMES[flag] ?? flag}"])`);

function flags() {
  const chosen = {};
  for (const control of $$("#options [name^='--']")) {
    const { name, value, type, checked } = control;
    if (type === "checkbox") {
      if (checked) chosen[name] = "";
    } else if (value.trim().startsWith("--")) chosen[value] = "";
    else if (value.trim()) chosen[name] = value.trim();
  }
  const formats = $$("#formats :checked").map(({ value }) => value);
  if (formats.length) chosen["--export"] = formats.join(",");
  return chosen;
}

function fillOptions() {
  $("#options").reset();
  $("#options [name=model]").value = job.model;
  const exported = (job.flags["--export"] ?? (job.task ? "" : "viewer")).split(",");
  $$("#formats input").forEach((one) => (one.checked = exported.includes(one.value)));
  for (const [flag, value] of Object.entries(job.flags)) {
    const control = flag !== "--export" && controlOf(flag);
    if (!control) continue;
    if (control.type === "checkbox") control.checked = true;
    else control.value = value || flag;
  }
  checkModel();
}

async function checkModel() {
  const [model, says] = [$("#options [name=model]").value, $("#model-says")];
  says.textContent = "checking…";
  try {
    const word = await ask("GET", `model?name=${encodeURIComponent(model)}`);
    if ($("#options [name=model]").value === model) {
      says.textContent = `${word.usable ? "✓" : "✗ cannot run"} ${word.says}`;
    }
  } catch (error) {
    says.textContent = error.message;
  }
}

const start = (kind, formats = "", place = $("[data-for=task]")) =>
  attempt(async () => {
    await saving;
    await ask("POST", `jobs/${job.id}/task`, { kind, formats, flags: flags(), model: $("#options [name=model]").value });
  }, place);

// People: found, chosen, corrected.

async function showFound() {
  $("#people").hidden = !job.found;
  if (!job.found) return;
  found = await (await fetch(job.found)).json();
  const scrub = $("#scrub");
  scrub.max = found.shown.length - 1;
  scrub.parentElement.hidden = found.shown.length < 2;
  $("#people-title").textContent = found.people.length
    ? `People: ${found.people.length} found`
    : "Nobody was found: draw boxes, or lower the confidence threshold under Advanced";
  drawSheet();
  goTo(found.shown[0]);
}

const drawnNumbers = () => {
  const known = found.people.map(({ number }) => number);
  return [...new Set(choice.edits.map(({ person }) => person))].filter((one) => !known.includes(one));
};
const colour = (number) => COLOURS[(number - 1) % COLOURS.length];
const isWanted = (number) => !Array.isArray(choice.people) || choice.people.includes(number);
const frame = () => found.shown[$("#scrub").value];
const pictureOf = (at) => fileOf(`found/frames/${String(at).padStart(6, "0")}.jpg`);

function drawSheet() {
  $("#who").value = Array.isArray(choice.people) ? "chosen" : choice.people;
  const people = [
    ...found.people,
    ...drawnNumbers().map((number) => {
      const edits = choice.edits.filter(({ person }) => person === number);
      return { number, frames: null, best: edits[0].frame, portrait: edits[0].box };
    }),
  ];
  $("#sheet").replaceChildren(
    ...people.map(({ number, frames, score, best, portrait }) => {
      const image = element("span", { className: "portrait" });
      crop(image, pictureOf(best), portrait);
      const box = element("input", { type: "checkbox", value: number, checked: isWanted(number) });
      box.onchange = () => {
        choosePeople();
        goTo(best);
      };
      const text = frames === null ? "drawn" : `${frames} frame${frames === 1 ? "" : "s"}, score ${score}`;
      return element("li", {}, element("label", {}, image, box, ` ${number}`, element("small", {}, text)));
    }),
  );
  const next = Math.max(0, ...people.map(({ number }) => number)) + 1;
  const kept = $("#drawn").value;
  $("#drawn").replaceChildren(
    element("option", { value: next }, `somebody new (${next})`),
    ...people.map(({ number }) => element("option", { value: number }, `person ${number}`)),
  );
  if (drawnNumbers().includes(Number(kept))) $("#drawn").value = kept;
}

// Shows the part of a picture in a box, in an element of a fixed height.
function crop(image, url, [x, y, width, height]) {
  const [full, tall] = [found.size, 136];
  const scale = Math.min(tall / height, 118 / width);
  image.style.backgroundImage = `url("${url}")`;
  image.style.backgroundSize = `${full[0] * scale}px ${full[1] * scale}px`;
  image.style.backgroundPosition = `${-x * scale + (118 - width * scale) / 2}px ${-y * scale + (tall - height * scale) / 2}px`;
}

function choosePeople() {
  choice.people = $$("#sheet :checked").map(({ value }) => Number(value));
  $("#who").value = "chosen";
  keep();
}

let saving = Promise.resolve();
function keep() {
  drawBoxes();
  const [id, wanted] = [job.id, structuredClone(choice)];
  saving = saving.then(() => ask("PUT", `jobs/${id}/choice`, wanted)).catch((error) => complain(error.message, $("[data-for='--person']")));
}

function goTo(at) {
  $("#scrub").value = found.shown.indexOf(at);
  drawBoxes();
}

function drawBoxes() {
  const at = frame();
  $("#picture").src = pictureOf(at);
  $("#scrub-at").textContent = at;
  const focused = document.activeElement?.dataset?.number;
  $$(".box").forEach((one) => one.remove());
  const boxes = new Map(found.people.filter(({ boxes }) => boxes[at]).map(({ number, boxes }) => [number, boxes[at]]));
  const edited = choice.edits.filter((edit) => edit.frame === at);
  edited.forEach(({ person, box }) => boxes.set(person, box));
  for (const [number, box] of [...boxes].sort(([, a], [, b]) => b[2] * b[3] - a[2] * a[3])) {
    const made = element("div", { className: "box", tabIndex: 0, role: "group" }, element("i"));
    made.ariaLabel = `Box of person ${number}`;
    made.dataset.number = number;
    made.style.setProperty("--colour", colour(number));
    made.classList.toggle("off", !isWanted(number));
    made.classList.toggle("edited", edited.some(({ person }) => person === number));
    place(made, box);
    made.onpointerdown = (event) => drag(event, number, box, event.target.tagName === "I" ? "size" : "move");
    made.onkeydown = (event) => nudge(event, number, box);
    $("#frame").append(made);
  }
  if (focused) $(`.box[data-number="${focused}"]`)?.focus();
  $("#undo").disabled = !edited.length;
}

function place(made, [x, y, width, height]) {
  const [full, tall] = found.size;
  Object.assign(made.style, {
    left: `${(100 * x) / full}%`, top: `${(100 * y) / tall}%`,
    width: `${(100 * width) / full}%`, height: `${(100 * height) / tall}%`,
  });
}

function correct(person, box) {
  const at = frame();
  const rounded = box.map((side) => Math.round(side * 10) / 10);
  choice.edits = choice.edits.filter((edit) => edit.frame !== at || edit.person !== person);
  choice.edits.push({ person, frame: at, box: rounded });
  if (Array.isArray(choice.people) && !choice.people.includes(person)) choice.people.push(person);
  drawSheet();
  $("#drawn").value = person;
  keep();
}

// Follows the pointer from press to release, and then corrects the box.
function drag(event, number, [x, y, width, height], way) {
  event.preventDefault();
  event.stopPropagation();
  const stage = $("#frame");
  const scale = found.size[0] / $("#picture").getBoundingClientRect().width;
  const made = $(`.box[data-number="${number}"]`) ?? element("div", { className: "box edited" });
  if (!made.isConnected) {
    made.style.setProperty("--colour", colour(number));
    stage.append(made);
  }
  made.focus();
  let box = [x, y, width, height];
  stage.setPointerCapture(event.pointerId);
  stage.onpointermove = (moved) => {
    const [right, down] = [(moved.clientX - event.clientX) * scale, (moved.clientY - event.clientY) * scale];
    if (way === "move") box = [x + right, y + down, width, height];
    else if (way === "size") box = [x, y, Math.max(4, width + right), Math.max(4, height + down)];
    else box = [x + Math.min(0, right), y + Math.min(0, down), Math.abs(right), Math.abs(down)];
    place(made, box);
  };
  stage.onpointerup = stage.onpointercancel = (ended) => {
    stage.onpointermove = stage.onpointerup = stage.onpointercancel = null;
    const moved = Math.abs(ended.clientX - event.clientX) + Math.abs(ended.clientY - event.clientY) > 3;
    if (ended.type === "pointerup" && moved && Math.min(box[2], box[3]) >= 4) correct(number, box);
    else drawBoxes();
  };
}

function nudge(event, number, [x, y, width, height]) {
  const [right, down] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [];
  if (right === undefined) return;
  event.preventDefault();
  const by = found.size[0] / 200;
  if (event.shiftKey) correct(number, [x, y, Math.max(4, width + right * by), Math.max(4, height + down * by)]);
  else correct(number, [x + right * by, y + down * by, width, height]);
}

// Results.

async function showResult() {
  $("#result").hidden = !job.has_result || !job.people;
  if ($("#result").hidden) return;
  $("#viewer").hidden = !job.viewer;
  if (job.viewer) $("#viewer").src = job.viewer;
  else $("#viewer").removeAttribute("src");
  $("#overlay-box").hidden = !job.overlay;
  $("#overlay-box").open = !job.viewer;
  const isVideo = job.overlay?.includes(".mp4?");
  $("#overlay").replaceChildren(
    ...(!job.overlay ? [] : [
      isVideo
        ? element("video", { src: job.overlay, controls: true, loop: true, muted: true })
        : element("img", { src: job.overlay, alt: "The photograph with the bodies drawn over it" }),
    ]),
  );
  const table = await (await fetch(job.people)).json();
  $("#table tbody").replaceChildren(
    ...table.map((one) => {
      const name = one.found === null ? one.number : `${one.number} (${one.found} of those found)`;
      const cells = [name, `${one.frames} (${one.first} to ${one.last})`, one.score,
        one.interpolated, one.out_of_range, one.truncated, one.occluded];
      return element("tr", {}, ...cells.map((text) => element("td", {}, String(text))));
    }),
  );
  $("#zip").href = `/api/jobs/${job.id}/results.zip`;
  $("#files").replaceChildren(
    ...job.files.map(([name, bytes]) =>
      element("li", {}, element("a", { href: fileOf(name), download: name.split("/").pop() }, name), ` ${megabytes(bytes)}`)),
  );
}

function showTrial() {
  $("#trial").hidden = !job.trial;
  $("#trial video")?.remove();
  if (!job.trial) return;
  $("#trial").append(element("video", { src: job.trial, controls: true, loop: true, muted: true }));
}

function formatBoxes(place) {
  place.append(...about.formats.map((name) =>
    element("label", {}, element("input", { type: "checkbox", value: name }), ` ${name}`)));
}

async function begin() {
  about = await ask("GET", "about");
  $("#file").accept = about.suffixes.join(",");
  for (const [kind, name] of Object.entries(about.bundled)) {
    const make = () => attempt(async () => open((await ask("POST", `bundled/${kind}`)).id), $("#start-error"));
    $("#bundled").append(element("button", { type: "button", onclick: make }, `${kind} (${name})`), " ");
  }
  $("#options [name=model]").append(...about.models.map((name) => element("option", {}, name)));
  formatBoxes($("#formats"));
  formatBoxes($("#more-formats"));

  const drop = $("#drop");
  $("#file").onchange = ({ target }) => upload(target.files[0]);
  for (const type of ["dragover", "dragleave", "drop"]) {
    drop.addEventListener(type, (event) => {
      event.preventDefault();
      drop.classList.toggle("over", type === "dragover");
      if (type === "drop") upload(event.dataTransfer.files[0]);
    });
  }
  $("#new").onclick = () => open();
  $("#options").onsubmit = (event) => event.preventDefault();
  $("#options [name=model]").onchange = checkModel;
  $$("[data-kind]").forEach((one) => (one.onclick = () => start(one.dataset.kind)));
  $("#export").onclick = () =>
    start("export", $$("#more-formats :checked").map(({ value }) => value).join(","), $("[data-for=export]"));
  $("#cancel").onclick = () => attempt(() => ask("DELETE", `jobs/${job.id}/task`), $("#job-error"));
  $("#copy").onclick = () => navigator.clipboard.writeText($("#command").textContent);
  $("#delete").onclick = () => {
    $("#ask p").textContent = `Delete ${job.name} and its results, ${megabytes(jobs.find(({ id }) => id === job.id).bytes)}?`;
    $("#ask").returnValue = "no";
    $("#ask").showModal();
  };
  $("#ask").onclose = () => {
    if ($("#ask").returnValue !== "yes") return;
    attempt(async () => {
      await ask("DELETE", `jobs/${job.id}`);
      open();
    }, $("#job-error"));
  };
  $("#who").onchange = ({ target }) => {
    if (target.value === "chosen") return choosePeople();
    choice.people = target.value;
    drawSheet();
    return keep();
  };
  $("#scrub").oninput = drawBoxes;
  $("#frame").onpointerdown = (event) => {
    const place = $("#picture").getBoundingClientRect();
    const scale = found.size[0] / place.width;
    const corner = [(event.clientX - place.x) * scale, (event.clientY - place.y) * scale];
    drag(event, Number($("#drawn").value), [...corner, 0, 0], "draw");
  };
  $("#add").onclick = () => {
    const [width, height] = found.size;
    correct(Number($("#drawn").value), [width * 0.4, height * 0.2, width * 0.2, height * 0.6]);
    $(`.box[data-number="${$("#drawn").value}"]`).focus();
  };
  $("#undo").onclick = () => {
    choice.edits = choice.edits.filter((edit) => edit.frame !== frame());
    if (Array.isArray(choice.people)) {
      const there = [...found.people.map(({ number }) => number), ...drawnNumbers()];
      choice.people = choice.people.filter((number) => there.includes(number));
    }
    drawSheet();
    keep();
  };
  addEventListener("hashchange", turn);
  document.addEventListener("visibilitychange", () => document.hidden || refresh());
  await turn();
}

begin().catch((error) => complain(error.message, $("#start-error")));
