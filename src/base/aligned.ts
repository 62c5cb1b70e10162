/**
 * Memory that a device can read into and write from directly (O_DIRECT): it begins at a multiple of 4096
 * bytes. WebAssembly's memories do, by their pages, on every system; no addon is needed for it.
 */
/** Not among the types of Node's globals. */
declare const WebAssembly: {
  readonly Memory: new (options: { initial: number }) => { readonly buffer: ArrayBuffer };
};

const PAGE_BYTES = 65_536;

/** `bytes` of zeros; not given back before the last view of it is gone. */
export function alignedMemory(bytes: number): Uint8Array {
  const memory = new WebAssembly.Memory({ initial: Math.max(1, Math.ceil(bytes / PAGE_BYTES)) });
  return new Uint8Array(memory.buffer, 0, bytes);
}
