// The clip in the page: JSON with references into one compressed block of numbers.

const TYPES = {
  i1: Int8Array,
  u1: Uint8Array,
  i2: Int16Array,
  u2: Uint16Array,
  i4: Int32Array,
  f4: Float32Array,
};

const textOf = (id) => document.getElementById(id).textContent;

function bytesOf(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

async function inflated(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).arrayBuffer();
}

function numbers(buffer, [type, offset, length, scale]) {
  const array = new TYPES[type](buffer, offset, length);
  return scale === 1 ? array : Float32Array.from(array, (value) => value * scale);
}

// All data of the page. `rowOf` of a person is the row of each frame, or -1.
export async function readClip() {
  const buffer = await inflated(bytesOf(textOf("data")));
  const clip = JSON.parse(textOf("about"), (_, value) =>
    value?.$ ? numbers(buffer, value.$) : value,
  );
  for (const person of clip.people) {
    person.rowOf = new Int32Array(clip.frames).fill(-1);
    person.frames.forEach((frame, row) => (person.rowOf[frame] = row));
  }
  return clip;
}

// An embedded file as a Blob. `packed`: it is compressed.
export async function embeddedFile({ embedded, type }, packed) {
  const bytes = bytesOf(textOf(embedded));
  return new Blob([packed ? await inflated(bytes) : bytes], { type });
}
