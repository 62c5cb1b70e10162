/**
 * Fields of the message by which an agent tells what its machine is and what the doctor found. Byte table
 * in PROTOCOL.md; bounds in limits.ts. Codes of findings are text: new ones need no new protocol. The
 * reader is total and accepts only what the writer makes.
 */
import { bootModes, type Finding, type MachineReport, severities } from '../model/machine.ts';
import { type ByteReader, type ByteWriter, malformed } from './bytes.ts';
import { MAX_FINDINGS, MAX_TEXT_BYTES, MAX_VOLUME_ID_BYTES, MAX_WORD_BYTES } from './limits.ts';
import type { Machine } from './messages.ts';

const LAST_MS = 8.64e15;
/** A severity, and four texts without a character. */
const FINDING_BYTES = 1 + 4 * 2;

/** Cut to fit rather than refused: what a machine says of itself is for people. */
export function writeMachine(out: ByteWriter, { report }: Machine): void {
  out.u64(Math.floor(report.timeMs));
  for (const word of [report.architecture, report.kernel, report.system]) {
    out.clippedText(word, MAX_WORD_BYTES);
  }
  out.u8(bootModes.indexOf(report.bootMode));
  out.u32(report.cpuCount);
  out.u64(report.memoryBytes);
  out.clippedText(report.bootVolume, MAX_VOLUME_ID_BYTES);
  const findings = report.findings.slice(0, MAX_FINDINGS);
  out.u16(findings.length);
  for (const { code, severity, subject, seen, action } of findings) {
    out.u8(severities.indexOf(severity));
    out.clippedText(code, MAX_WORD_BYTES);
    out.clippedText(subject, MAX_VOLUME_ID_BYTES);
    out.clippedText(seen, MAX_TEXT_BYTES);
    out.clippedText(action, MAX_TEXT_BYTES);
  }
}

function readFinding(from: ByteReader): Finding {
  const severity = severities[from.u8()];
  if (severity === undefined) throw malformed('unknown severity');
  return {
    severity,
    code: from.text(MAX_WORD_BYTES),
    subject: from.text(MAX_VOLUME_ID_BYTES),
    seen: from.text(MAX_TEXT_BYTES),
    action: from.text(MAX_TEXT_BYTES),
  };
}

export function readMachine(from: ByteReader): Machine {
  const timeMs = from.u64();
  if (timeMs > LAST_MS) throw malformed('a time beyond all calendars');
  const architecture = from.text(MAX_WORD_BYTES);
  const kernel = from.text(MAX_WORD_BYTES);
  const system = from.text(MAX_WORD_BYTES);
  const bootMode = bootModes[from.u8()];
  if (bootMode === undefined) throw malformed('unknown boot mode');
  const cpuCount = from.u32();
  const memoryBytes = from.u64();
  const bootVolume = from.text(MAX_VOLUME_ID_BYTES);
  const count = from.count(from.u16(), FINDING_BYTES, MAX_FINDINGS);
  const findings = Array.from({ length: count }, () => readFinding(from));
  const report: MachineReport = {
    ...{ timeMs, architecture, kernel, system, bootMode, cpuCount, memoryBytes },
    ...{ bootVolume, findings },
  };
  return { type: 'machine', report };
}
