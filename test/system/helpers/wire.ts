/** A TCP wire between agent and staging that can be cut, go silent (half-open), or be slow. */
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import type { Scratch } from './scratch.ts';
import { pause } from './wait.ts';

export class Wire {
  url = '';
  bytesToService = 0;
  private bytesPerSecond = Number.POSITIVE_INFINITY;
  private isRefusing = false;
  private readonly server: Server;
  private readonly sockets = new Set<Socket>();

  private constructor(targetPort: number) {
    this.server = createServer((inner) => {
      if (this.isRefusing) inner.destroy();
      else this.join(inner, connect(targetPort, '127.0.0.1'));
    });
  }

  static async start(scratch: Scratch, targetPort: number): Promise<Wire> {
    const wire = new Wire(targetPort);
    await new Promise<void>((done) => wire.server.listen(0, '127.0.0.1', done));
    wire.url = `http://127.0.0.1:${(wire.server.address() as AddressInfo).port}`;
    scratch.defer(async () => {
      wire.cut();
      await new Promise((done) => wire.server.close(done));
    });
    return wire;
  }

  /** Breaks all connections; new ones are taken. */
  cut(): void {
    for (const socket of this.sockets) socket.destroy();
  }
  refuse(isRefusing: boolean): void {
    this.isRefusing = isRefusing;
    if (isRefusing) this.cut();
  }
  /** Existing connections stay open and nothing passes any more; new connections work. */
  silence(): void {
    for (const socket of this.sockets) {
      socket.removeAllListeners('data');
      socket.pause();
    }
  }
  slow(bytesPerSecond: number): void {
    this.bytesPerSecond = bytesPerSecond;
  }

  private join(inner: Socket, outer: Socket): void {
    this.forward(inner, outer, (count) => {
      this.bytesToService += count;
    });
    this.forward(outer, inner, () => undefined);
  }

  private forward(from: Socket, to: Socket, count: (bytes: number) => void): void {
    this.sockets.add(from);
    from.on('error', () => to.destroy());
    from.on('close', () => {
      this.sockets.delete(from);
      to.destroy();
    });
    from.on('data', async (data: Buffer) => {
      count(data.length);
      const isFull = !to.write(data);
      const delayMs = (data.length / this.bytesPerSecond) * 1000;
      if (delayMs < 1 && !isFull) return;
      from.pause();
      await Promise.all([
        pause(delayMs),
        isFull ? new Promise((done) => to.once('drain', done).once('close', done)) : undefined,
      ]);
      from.resume();
    });
  }
}
