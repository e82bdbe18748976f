// Numbers over time: position, speed and angle of a joint of a person.
import { Matrix4, Quaternion, Vector3 } from "three";

export const QUANTITIES = {
  speed: { label: "Speed", unit: "m/s", digits: 2, floor: 0 },
  angle: { label: "Joint angle", unit: "°", digits: 0, floor: 0 },
  height: { label: "Height", unit: "m", digits: 2 },
  across: { label: "Across", unit: "m", digits: 2 },
  distance: { label: "Distance", unit: "m", digits: 2 },
  acceleration: { label: "Acceleration", unit: "m/s²", digits: 1, floor: 0 },
};

export class Series {
  #cache = new Map();

  constructor(clip) {
    this.clip = clip;
    this.world = new Matrix4().fromArray(clip.world).transpose();
  }

  // A value for each frame of the clip, NaN where the person is absent. motion: smoothed or raw.
  of(person, motion, joint, quantity) {
    const key = [person.number, motion, joint, quantity].join();
    if (!this.#cache.has(key)) {
      if (this.#cache.size > 200) this.#cache.clear();
      const byRow = this.#rows(person, person[motion], joint, quantity);
      const values = new Float32Array(this.clip.frames).fill(NaN);
      person.frames.forEach((frame, row) => (values[frame] = byRow[row]));
      this.#cache.set(key, values);
    }
    return this.#cache.get(key);
  }

  #rows(person, motion, joint, quantity) {
    if (quantity === "angle") return angles(motion.rotations, joint, this.clip.joints.length);
    const places = this.#places(person, motion, joint);
    if (quantity === "speed") return this.#speeds(person.frames, places);
    if (quantity === "acceleration") return this.#accelerations(person.frames, places);
    if (quantity === "distance" || quantity === "across") {
      const seen = this.clip.cameras ? this.#fromCamera(person.frames, places) : places;
      return seen.map((place) => (quantity === "distance" ? -place.z : place.x));
    }
    return places.map((place) => place.clone().applyMatrix4(this.world).y);
  }

  // From positions in the world.
  #fromCamera(frames, places) {
    const { poses } = this.clip.cameras;
    const pose = new Matrix4();
    return places.map((place, row) => {
      pose.fromArray(poses, 16 * frames[row]).invert();
      return place.clone().applyMatrix4(pose);
    });
  }

  // In the frame of the page, y up, metres: along the chain from the root.
  #places(person, motion, joint) {
    const { parents } = this.clip.template;
    const count = parents.length;
    const chain = [joint];
    while (chain[0] > 0) chain.unshift(parents[chain[0]]);
    const offsets = chain.slice(1).map((j) => restOffset(person.rest, j, parents[j]));
    const turn = new Quaternion();
    const local = new Quaternion();
    return Array.from(person.frames, (_, row) => {
      const place = new Vector3().fromArray(motion.pelvis, 3 * row);
      turn.identity();
      offsets.forEach((offset, step) => {
        turn.multiply(local.fromArray(motion.rotations, 4 * (row * count + chain[step])));
        place.add(offset.clone().applyQuaternion(turn.normalize()));
      });
      return place;
    });
  }

  // Metres per second, between the previous and the next frame.
  #speeds(frames, places) {
    return places.map((place, row) => {
      const [before, after] = neighbours(frames, row);
      const time = (frames[after] - frames[before]) / this.clip.fps;
      return time ? places[before].distanceTo(places[after]) / time : NaN;
    });
  }

  #accelerations(frames, places) {
    return places.map((place, row) => {
      const [before, after] = neighbours(frames, row);
      if (after - before < 2) return NaN;
      const sum = places[before].clone().add(places[after]).addScaledVector(place, -2);
      return sum.length() * this.clip.fps ** 2;
    });
  }
}

export function restOffset(rest, joint, parent) {
  return new Vector3().fromArray(rest, 3 * joint).sub(new Vector3().fromArray(rest, 3 * parent));
}

// From the rest pose, degrees.
function angles(rotations, joint, count) {
  const rows = rotations.length / (4 * count);
  return Float32Array.from({ length: rows }, (_, row) => {
    const [x, y, z, w] = rotations.subarray(4 * (row * count + joint), 4 * (row * count + joint) + 4);
    return (Math.atan2(Math.hypot(x, y, z), Math.abs(w)) * 360) / Math.PI;
  });
}

// The rows of the previous and next frames, or the row itself if there is none.
function neighbours(frames, row) {
  const before = frames[row - 1] === frames[row] - 1 ? row - 1 : row;
  const after = frames[row + 1] === frames[row] + 1 ? row + 1 : row;
  return [before, after];
}
