// Two ways to look at the scene: freely around it, and through the camera that took the picture.
import * as THREE from "three";
import { OrbitControls } from "three/addons/controls/OrbitControls.js";

const NEAR = 0.05;
const FAR = 200;

function middleOf(places, axis) {
  const values = places.map((place) => place[axis]).sort((a, b) => a - b);
  return values[Math.floor(values.length / 2)];
}

export class Views {
  // world: from the camera's frame (y up) to the floor's.
  constructor(clip, canvas, world, changed) {
    this.clip = clip;
    this.orbit = new THREE.PerspectiveCamera(38, 1, NEAR, FAR);
    this.recorded = new THREE.PerspectiveCamera();
    this.recorded.matrixAutoUpdate = false;
    this.recorded.matrix.copy(world);
    this.recorded.updateMatrixWorld(true);
    this.controls = new OrbitControls(this.orbit, canvas);
    this.controls.enableDamping = false;
    this.controls.zoomToCursor = true;
    this.controls.maxPolarAngle = Math.PI * 0.98;
    this.controls.minDistance = 0.3;
    this.controls.maxDistance = 60;
    this.controls.addEventListener("change", changed);
  }

  // The free view starts beside the camera's, a little above, with most of what happens in it.
  start(places) {
    const middle = new THREE.Vector3(...["x", "y", "z"].map((axis) => middleOf(places, axis)));
    const distances = places.map((place) => place.distanceTo(middle)).sort((a, b) => a - b);
    const eye = new THREE.Vector3().setFromMatrixPosition(this.recorded.matrix);
    const back = eye.clone().sub(middle).setY(0).normalize();
    const reach = distances[Math.floor(0.6 * distances.length)] + 1.05;
    const distance = reach / Math.tan((this.orbit.fov * Math.PI) / 360);
    const direction = back.applyAxisAngle(new THREE.Vector3(0, 1, 0), 0.5).setY(0.3).normalize();
    this.home = { target: middle, position: middle.clone().addScaledVector(direction, distance) };
    this.reset();
  }

  reset() {
    this.controls.target.copy(this.home.target);
    this.orbit.position.copy(this.home.position);
    this.controls.update();
  }

  // Moves the free view so that it looks at `place`, from where it did and at most `distance` away.
  lookAt(place, distance = Infinity) {
    const offset = this.orbit.position.clone().sub(this.controls.target);
    offset.setLength(Math.min(offset.length(), distance));
    this.controls.target.copy(place);
    this.orbit.position.copy(place).add(offset);
    this.controls.update();
  }

  resize(width, height) {
    this.orbit.aspect = width / height;
    this.orbit.updateProjectionMatrix();
    const { size, focal, center } = this.clip;
    // The picture is as large as fits, in the middle; pixels count from the first one's centre.
    const scale = Math.max(size[0] / width, size[1] / height);
    const [marginX, marginY] = [(width * scale - size[0]) / 2, (height * scale - size[1]) / 2];
    const left = -(center[0] + 0.5 + marginX) / focal[0];
    const right = (size[0] - center[0] - 0.5 + marginX) / focal[0];
    const top = (center[1] + 0.5 + marginY) / focal[1];
    const bottom = -(size[1] - center[1] - 0.5 + marginY) / focal[1];
    const sides = [left, right, top, bottom].map((side) => side * NEAR);
    this.recorded.projectionMatrix.makePerspective(...sides, NEAR, FAR);
    this.recorded.projectionMatrixInverse.copy(this.recorded.projectionMatrix).invert();
    return { x: marginX / scale, y: marginY / scale };
  }
}
