// The space that people occupy over the whole clip.
import { Vector3 } from "three";

const ENDS = /^(head|(left|right)_(elbow|middle3|knee|foot))$/;
const POSES = 1500; // at most, in a long clip

// The outermost joints, in the world.
export function placesOf(figures, { joints }) {
  const ends = joints.flatMap((name, joint) => (ENDS.test(name) ? [joint] : []));
  const rows = figures.reduce((sum, { person }) => sum + person.frames.length, 0);
  const step = Math.ceil(rows / POSES);
  const places = [];
  for (const figure of figures) {
    const { smoothed, frames } = figure.person;
    for (let row = 0; row < frames.length; row += step) {
      figure.pose(smoothed, row);
      for (const joint of ends) {
        places.push(new Vector3().setFromMatrixPosition(figure.bones[joint].matrixWorld));
      }
    }
  }
  return places;
}
