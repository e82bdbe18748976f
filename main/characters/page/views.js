// Two views of the scene: free, and through the camera of the clip.
import * as THREE from "three";
import { OrbitControls } from "three/addons/controls/OrbitControls.js";

const NEAR = 0.05;
const FAR = 200;
const ASIDE = 0.5; // radians, from the camera's side
const ABOVE = 0.3;
const FILLED = 0.86; // of the canvas
const SKIN_M = 0.2; // around the joints
const CENTERING_STEPS = 12;

// The position with the highest score.
function most(places, score) {
  let highest = -Infinity;
  for (const place of places) highest = Math.max(highest, score(place));
  return highest;
}

export class Views {
  // world: from the camera frame (y up) to that of the floor.
  constructor(clip, canvas, world, changed) {
    this.clip = clip;
    this.orbit = new THREE.PerspectiveCamera(38, 1, NEAR, FAR);
    this.recorded = new THREE.PerspectiveCamera();
    this.recorded.matrixAutoUpdate = false;
    this.recorded.matrix.copy(world);
    this.zoom = 1;
    if (clip.cameras) this.show(0);
    this.recorded.updateMatrixWorld(true);
    this.controls = new OrbitControls(this.orbit, canvas);
    this.controls.enableDamping = false;
    this.controls.zoomToCursor = true;
    this.controls.maxPolarAngle = Math.PI * 0.98;
    this.controls.minDistance = 0.3;
    this.controls.maxDistance = 150;
    this.controls.addEventListener("start", () => (this.held = true));
    this.controls.addEventListener("end", () => (this.held = false));
    this.controls.addEventListener("change", () => {
      if (this.held) this.atHome = false;
      changed();
    });
  }

  // Moves the recorded camera to its pose in a frame.
  show(frame) {
    const { poses, zooms } = this.clip.cameras;
    this.recorded.matrix.fromArray(poses, 16 * frame);
    this.recorded.updateMatrixWorld(true);
    if (this.zoom === zooms[frame]) return;
    this.zoom = zooms[frame];
    if (this.margins) this.#project();
  }

  // The free view starts beside that of the camera, slightly above, and contains all of `places`.
  start(places) {
    this.places = places;
    this.reset();
  }

  reset() {
    const { position, target } = this.#home();
    this.controls.target.copy(target);
    this.orbit.position.copy(position);
    this.controls.update();
    this.atHome = true;
  }

  // As near as everyone is inside the four sides of the view's pyramid: each side and its opposite
  // say how far along `back` the eye must be.
  #home() {
    const { places } = this;
    const middle = new THREE.Box3().setFromPoints(places).getCenter(new THREE.Vector3());
    const back = new THREE.Vector3().setFromMatrixPosition(this.recorded.matrix).sub(middle);
    back.setY(0).normalize().applyAxisAngle(this.orbit.up, ASIDE).setY(ABOVE).normalize();
    const across = new THREE.Vector3().crossVectors(this.orbit.up, back).normalize();
    const upward = new THREE.Vector3().crossVectors(back, across);
    const slope = FILLED * Math.tan((this.orbit.fov * Math.PI) / 360);
    const sides = [[across, slope * this.orbit.aspect], [upward, slope]];
    const distances = sides.map(([axis, steep]) => {
      const one = most(places, (place) => steep * place.dot(back) + place.dot(axis));
      const other = most(places, (place) => steep * place.dot(back) - place.dot(axis));
      return (one + other) / (2 * steep) + SKIN_M * Math.hypot(1, 1 / steep);
    });
    const distance = Math.max(...distances);
    const position = back.clone().multiplyScalar(distance);
    for (const [axis] of sides) position.addScaledVector(axis, this.#center(axis, back, distance));
    const target = position.clone().addScaledVector(back, middle.dot(back) - distance);
    return { position, target };
  }

  // The position along `axis` at which both sides have equal margins, by bisection.
  #center(axis, back, distance) {
    const { places } = this;
    let low = -most(places, (place) => -place.dot(axis));
    let high = most(places, (place) => place.dot(axis));
    for (let step = 0; step < CENTERING_STEPS; step++) {
      const middle = (low + high) / 2;
      const seen = (place) => (place.dot(axis) - middle) / (distance - place.dot(back));
      if (most(places, seen) > most(places, (place) => -seen(place))) low = middle;
      else high = middle;
    }
    return low;
  }

  // Turns the free view to `place`, from the same side and at most `distance` away.
  lookAt(place, distance = Infinity) {
    const offset = this.orbit.position.clone().sub(this.controls.target);
    offset.setLength(Math.min(offset.length(), distance));
    this.controls.target.copy(place);
    this.orbit.position.copy(place).add(offset);
    this.controls.update();
    this.atHome = false;
  }

  resize(width, height) {
    this.orbit.aspect = width / height;
    this.orbit.updateProjectionMatrix();
    if (this.atHome) this.reset();
    const { size } = this.clip;
    // The picture is as large as possible, centred; pixels count from the centre of the first one.
    const scale = Math.max(size[0] / width, size[1] / height);
    this.margins = [(width * scale - size[0]) / 2, (height * scale - size[1]) / 2];
    this.#project();
    return { x: this.margins[0] / scale, y: this.margins[1] / scale };
  }

  #project() {
    const { size, focal, center } = this.clip;
    const [marginX, marginY] = this.margins;
    const left = -(center[0] + 0.5 + marginX) / focal[0];
    const right = (size[0] - center[0] - 0.5 + marginX) / focal[0];
    const top = (center[1] + 0.5 + marginY) / focal[1];
    const bottom = -(size[1] - center[1] - 0.5 + marginY) / focal[1];
    const sides = [left, right, top, bottom].map((side) => (side * NEAR) / this.zoom);
    this.recorded.projectionMatrix.makePerspective(...sides, NEAR, FAR);
    this.recorded.projectionMatrixInverse.copy(this.recorded.projectionMatrix).invert();
  }
}
