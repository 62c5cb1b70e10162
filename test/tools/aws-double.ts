/**
 * The server before the doubles of EBS direct and EC2: takes requests, knows one access key, keeps a list of
 * the calls, and does what a test asks for at one of them: an error instead, no answer before or after it
 * was carried out, or a word to the test.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type EbsAnswer, EbsDouble, EbsRefusal } from './ebs-double.ts';
import { Ec2Double, Ec2Refusal } from './ec2-double.ts';

/** The only key that is known. */
export const ACCESS_KEY = 'AKIADOUBLE';

/** `refuse`: an error in its place. `drop`: the connection ends, and it was not or was carried out. */
export type Fault =
  | { readonly kind: 'refuse'; readonly status: number; readonly type: string; reason?: string }
  | { readonly kind: 'drop'; readonly isDone: boolean };

export interface AwsDouble {
  readonly endpoint: string;
  readonly ebs: EbsDouble;
  readonly ec2: Ec2Double;
  /** Names of all calls, in order. */
  readonly calls: string[];
  /** Asked before each call, with its name and its number from 1. */
  fault: (call: string, number: number) => Fault | undefined;
  stop(): Promise<void>;
}

const ebsNames: readonly (readonly [RegExp, string])[] = [
  [/^POST \/snapshots$/, 'StartSnapshot'],
  [/^POST \/snapshots\/completion\//, 'CompleteSnapshot'],
  [/^PUT /, 'PutSnapshotBlock'],
  [/^GET .*\/blocks$/, 'ListSnapshotBlocks'],
  [/^GET .*\/blocks\/\d+$/, 'GetSnapshotBlock'],
];

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(part as Buffer);
  return Buffer.concat(parts);
}

export async function startAwsDouble(): Promise<AwsDouble> {
  const ebs = new EbsDouble();
  const ec2 = new Ec2Double(ebs);
  const calls: string[] = [];
  const server = createServer((request, response) => {
    // A client that hangs up in the middle is part of the tests.
    serve(request, response).catch(() => request.destroy());
  });

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url!, 'http://double');
    const isEbs = url.pathname.startsWith('/snapshots');
    const body = await bodyOf(request);
    const form = isEbs ? {} : Object.fromEntries(new URLSearchParams(body.toString()));
    const line = `${request.method} ${url.pathname}`;
    const name = isEbs
      ? (ebsNames.find(([pattern]) => pattern.test(line))?.[1] ?? line)
      : `${form.Action}`;
    calls.push(name);
    const fault = double.fault(name, calls.length);
    if (fault?.kind === 'drop' && !fault.isDone) return void request.socket.destroy();
    const answer = answerTo();
    if (fault?.kind === 'drop') return void request.socket.destroy();
    response.writeHead(answer.status, answer.headers);
    response.end(answer.body);

    function answerTo(): { status: number; headers: Record<string, string>; body: Buffer } {
      try {
        const key = /Credential=([^/]+)\//.exec(request.headers.authorization ?? '')?.[1];
        if (fault?.kind === 'refuse') throw refusal(isEbs, fault);
        if (key !== ACCESS_KEY) throw refusal(isEbs, unknownKey(isEbs));
        if (!isEbs) return xml(200, ec2.answer(form));
        const headers = request.headers as Record<string, string | undefined>;
        return json(ebs.answer({ method: request.method!, url, headers, body }));
      } catch (error) {
        return refused(error);
      }
    }
  }

  const double: AwsDouble = {
    ...{ endpoint: '', ebs, ec2, calls },
    fault: () => undefined,
    stop: () => {
      server.closeAllConnections();
      return new Promise((ended) => server.close(() => ended()));
    },
  };
  await new Promise<void>((ready) => server.listen(0, '127.0.0.1', ready));
  const { port } = server.address() as AddressInfo;
  return Object.assign(double, { endpoint: `http://127.0.0.1:${port}` });
}

const unknownKey = (isEbs: boolean) =>
  isEbs
    ? { status: 403, type: 'UnrecognizedClientException' }
    : { status: 401, type: 'AuthFailure' };

function refusal(isEbs: boolean, fault: { status: number; type: string; reason?: string }): Error {
  const { status, type, reason } = fault;
  if (isEbs) return new EbsRefusal(status, type, 'as the test asked', reason);
  return Object.assign(new Ec2Refusal(type, 'as the test asked'), { status });
}

function refused(error: unknown): {
  status: number;
  headers: Record<string, string>;
  body: Buffer;
} {
  if (error instanceof Ec2Refusal) {
    const { status = 400 } = error as { status?: number };
    const told = `<Error><Code>${error.code}</Code><Message>${error.message}</Message></Error>`;
    return xml(status, `<Response><Errors>${told}</Errors><RequestID>r</RequestID></Response>`);
  }
  if (!(error instanceof EbsRefusal)) throw error;
  const { status, type, reason } = error;
  const body = { Message: error.message, ...(reason !== undefined && { Reason: reason }) };
  return json({ status, headers: { 'x-amzn-errortype': type }, body });
}

const xml = (status: number, text: string) => ({
  status,
  headers: { 'content-type': 'text/xml' },
  body: Buffer.from(text),
});

function json({ status, headers = {}, body = {} }: EbsAnswer) {
  const isBytes = Buffer.isBuffer(body);
  const kind = isBytes ? 'application/octet-stream' : 'application/json';
  const bytes = isBytes ? body : Buffer.from(JSON.stringify(body));
  return { status, headers: { 'content-type': kind, ...headers }, body: bytes };
}
