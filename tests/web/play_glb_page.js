// Plays /character.glb: `seek` goes to a time, `vertices` gives what is drawn there.
import * as THREE from "three";
import { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";

const renderer = new THREE.WebGLRenderer({ antialias: true, preserveDrawingBuffer: true });
renderer.setSize(innerWidth, innerHeight);
document.body.append(renderer.domElement);
const scene = new THREE.Scene();
scene.background = new THREE.Color(0xd8dde3);
scene.add(new THREE.HemisphereLight(0xffffff, 0x8a8f98, 2.0));
const sun = new THREE.DirectionalLight(0xffffff, 2.2);
sun.position.set(1, 2, 2);
scene.add(sun);

const gltf = await new GLTFLoader().loadAsync("/character.glb");
scene.add(gltf.scene);
const mixer = new THREE.AnimationMixer(gltf.scene);
const clip = gltf.animations[0];
const action = mixer.clipAction(clip);
action.setLoop(THREE.LoopOnce);
action.clampWhenFinished = true;
action.play();
const meshes = [];
gltf.scene.traverse((node) => node.isSkinnedMesh && meshes.push(node));
const bones = meshes[0].skeleton.bones;

function base64(array) {
  const bytes = new Uint8Array(array.buffer);
  let text = "";
  for (let i = 0; i < bytes.length; i += 32768) {
    text += String.fromCharCode(...bytes.subarray(i, i + 32768));
  }
  return btoa(text);
}

window.about = () => ({
  meshes: meshes.map((mesh) => ({
    name: mesh.name,
    vertices: mesh.geometry.attributes.position.count,
    morphs: Object.keys(mesh.morphTargetDictionary ?? {}),
    attributes: Object.keys(mesh.geometry.attributes),
  })),
  bones: bones.map((bone) => bone.name),
  duration: clip.duration,
});

window.seek = (time) => {
  mixer.setTime(time);
  scene.updateMatrixWorld(true);
  meshes.forEach((mesh) => mesh.skeleton.update());
};

window.vertices = () => {
  const point = new THREE.Vector3();
  return meshes.map((mesh) => {
    const count = mesh.geometry.attributes.position.count;
    const positions = new Float32Array(3 * count);
    for (let i = 0; i < count; i++) {
      mesh.getVertexPosition(i, point).applyMatrix4(mesh.matrixWorld).toArray(positions, 3 * i);
    }
    return base64(positions);
  });
};

// view: "body", "face" or "hand"; the camera looks from the front, a little from the side.
window.draw = (view) => {
  const bone = { body: "pelvis", face: "jaw", hand: "left_middle1" }[view];
  const target = bones.find(({ name }) => name === bone).getWorldPosition(new THREE.Vector3());
  const distance = { body: 3.2, face: 0.75, hand: 0.55 }[view];
  const camera = new THREE.PerspectiveCamera(35, innerWidth / innerHeight, 0.05, 50);
  camera.position.copy(target).add(new THREE.Vector3(0.35, 0.12, 0.93).multiplyScalar(distance));
  camera.lookAt(target);
  renderer.render(scene, camera);
};

window.ready = true;
