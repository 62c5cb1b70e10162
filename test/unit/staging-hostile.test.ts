/** Peers that break the rules of the protocol, or never knew them. */
import { describe, expect, it } from 'vitest';
import { CHUNK_BYTES } from '../../src/model/geometry.ts';
import { encodeMessage } from '../../src/protocol/codec.ts';
import type { AgentMessage, Patch } from '../../src/protocol/messages.ts';
import { digestOf, rawPiece } from './support/messages.ts';
import { ScriptedAgent } from './support/scripted-agent.ts';
import { first, hello, makeWorld, patchOf, settled, useFolder } from './support/servers-world.ts';

const folder = useFolder();

describe('a hostile peer gets a coded close, and changes nothing', () => {
  const offer = (seq: number): AgentMessage => ({
    type: 'offer',
    seq,
    volume: 0,
    synced: 0,
    entries: [],
  });
  const damaged = (message: AgentMessage): Uint8Array => {
    const frame = Buffer.from(encodeMessage(message));
    frame[14] = frame[14]! ^ 1;
    return frame;
  };
  const lying: Patch = {
    ...patchOf('one'),
    pieces: [{ ...rawPiece('two'), digest: digestOf('one') }],
  };
  const bomb: Patch = {
    ...patchOf('one'),
    pieces: [
      {
        digest: digestOf('one'),
        codec: 1,
        rawLength: 65_536,
        stored: Uint8Array.of(255, 255, 255, 127, 0, 0),
      },
    ],
  };
  const cases: [string, (agent: ScriptedAgent) => void, string][] = [
    ['a batch out of order', (agent) => agent.say(offer(7)), 'ERR_PROTOCOL_ORDER'],
    ['an unknown volume', (agent) => agent.say(patchOf('p', 9)), 'ERR_PROTOCOL_VOLUME'],
    ['a second Hello', (agent) => agent.say(hello), 'ERR_PROTOCOL_ORDER'],
    [
      'contents that nobody asked for',
      (agent) => agent.say({ type: 'pieces', seq: 1, pieces: [rawPiece('p')] }),
      'ERR_PROTOCOL_ORDER',
    ],
    [
      'contents that are not what they are named',
      (agent) => agent.say(lying),
      'ERR_PROTOCOL_DIGEST',
    ],
    ['contents that claim another length', (agent) => agent.say(bomb), 'ERR_PROTOCOL_DIGEST'],
    ['a damaged frame', (agent) => agent.sayFrame(damaged(offer(1))), 'ERR_PROTOCOL_CHECKSUM'],
    [
      'a damaged ping',
      (agent) => agent.sayFrame(damaged({ type: 'ping', id: 1 })),
      'ERR_PROTOCOL_CHECKSUM',
    ],
    [
      'bytes that are no frame',
      (agent) => agent.sayFrame(Buffer.from('GET / HTTP/1.1\r\n\r\n')),
      'ERR_PROTOCOL_FRAME',
    ],
    [
      'a message of ours',
      (agent) => agent.sayFrame(encodeMessage({ type: 'stored', seq: 1, bytes: 0 })),
      'ERR_PROTOCOL_ORDER',
    ],
    [
      'a commit of the wrong epoch',
      (agent) => agent.commit(1, [{ ...first[0]!, epoch: 2 }]),
      'ERR_COMMIT_POSITION',
    ],
    [
      'a commit of another generation',
      (agent) => agent.commit(1, [{ ...first[0]!, generation: 'cd'.repeat(16) }]),
      'ERR_COMMIT_POSITION',
    ],
    [
      'a commit of other entries',
      (agent) => {
        agent.digests.add(0, Buffer.from('more'));
        agent.commit(1, first);
      },
      'ERR_PROTOCOL_DIGEST',
    ],
  ];
  it.each(cases)('%s', async (_name, attack, code) => {
    const { fake, network, servers, broken } = await makeWorld(folder);
    const agent = await ScriptedAgent.connect(network.dialer, hello);
    attack(agent);
    expect(await agent.refusal()).toBe(code);
    await agent.end();
    await settled();
    expect(fake.calls).toEqual(['begin web', 'close']);
    expect(broken).toEqual([]);
    expect(servers.describe()[0]).toMatchObject({
      server: 'web',
      connected: false,
      state: 'disconnected',
    });
    const other = await ScriptedAgent.connect(network.dialer, hello);
    other.say(patchOf('p'));
    await other.next('stored');
    await servers.stop();
  });

  it('more contents in flight than granted', async () => {
    const { fake, network, servers } = await makeWorld(folder);
    const agent = await ScriptedAgent.connect(network.dialer, hello);
    fake.durableGate.isShut = true;
    const content = Buffer.alloc(CHUNK_BYTES, 'x').toString('latin1');
    const pieces = Array.from({ length: 16 }, (_, i) =>
      rawPiece(String(i).padStart(2, '0') + content.slice(2)),
    );
    for (let i = 0; i < 30; i += 1)
      agent.say({ type: 'patch', seq: 0, volume: 0, entries: [], pieces });
    expect(await agent.refusal()).toBe('ERR_PROTOCOL_WINDOW');
    fake.durableGate.open();
    await servers.stop();
  });

  it.each<[string, AgentMessage]>([
    ['a batch', patchOf('p')],
    [
      'a commit',
      {
        type: 'commit',
        timeMs: 1,
        cut: { method: 'scan', passes: 1, durationMs: 0 },
        requestId: '',
        volumes: [{ ...first[0]!, contentDigest: '00'.repeat(32) }],
      },
    ],
  ])('%s before Hello', async (_name, message) => {
    const { fake, network, servers } = await makeWorld(folder);
    const agent = new ScriptedAgent(network.dialer, (each) => each.say(message));
    expect(await agent.refusal()).toBe('ERR_PROTOCOL_ORDER');
    await settled();
    expect(fake.calls).toEqual([]);
    await servers.stop();
  });

  it('answers that pile up unread', async () => {
    const { fake, network, servers } = await makeWorld(folder);
    let unread = 0;
    network.listen((connect) =>
      servers.accept((handlers) => {
        const connection = connect(handlers);
        return {
          peer: connection.peer,
          get bufferedBytes() {
            return unread;
          },
          send: (frame) => connection.send(frame),
          pause: () => connection.pause(),
          resume: () => connection.resume(),
          close: (reason) => connection.close(reason),
          abort: () => connection.abort(),
        };
      }),
    );
    const agent = await ScriptedAgent.connect(network.dialer, hello);
    unread = 2 ** 25;
    agent.say(patchOf('p'));
    expect((await agent.end()).code).toBe('ERR_CONNECTION_LOST');
    await settled();
    expect(fake.calls.at(-1)).toBe('close');
    await servers.stop();
  });

  it('a Hello of another version', async () => {
    const { fake, network, servers } = await makeWorld(folder);
    const agent = ScriptedAgent.greet(network.dialer, { ...hello, version: 9 });
    expect(await agent.refusal()).toBe('ERR_PROTOCOL_VERSION');
    expect(fake.calls).toEqual([]);
    await servers.stop();
  });
});
