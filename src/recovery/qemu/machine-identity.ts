/**
 * Who a virtual machine is to its guest: a UUID, a serial number and a network address of its own, made of
 * the job's id. Pure. So a clone never shows the hardware identity of its source, two never show the same,
 * and one that is started again is the machine that it was.
 */
import { createHash } from 'node:crypto';

export interface MachineIdentity {
  /** Of DMI: /sys/class/dmi/id/product_uuid. */
  readonly uuid: string;
  /** Of DMI: product_serial. */
  readonly serialNumber: string;
  readonly mac: string;
}

export function identityOf(jobId: string): MachineIdentity {
  const bytes = createHash('sha256').update(`understudy machine\0${jobId}`).digest();
  const mac = ['52', '54', '00', ...[16, 17, 18].map((at) => hex(bytes.subarray(at, at + 1)))];
  // Version 8 (of the maker's own), variant 1: RFC 9562.
  bytes[6] = (bytes[6]! & 0x0f) | 0x80;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const parts = [bytes.subarray(0, 4), bytes.subarray(4, 6), bytes.subarray(6, 8)];
  const uuid = [...parts, bytes.subarray(8, 10), bytes.subarray(10, 16)].map(hex).join('-');
  return { uuid, serialNumber: `understudy-${jobId}`, mac: mac.join(':') };
}

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
