/** What the servers of ours_workers.ts do with a connection. */
import { BaseRequestHandler, SocketError } from "../../mod.ts";

/** Sends back what comes until the connection ends. */
export class echo extends BaseRequestHandler {
  override async handle(): Promise<void> {
    try {
      for await (const chunk of this.request) {
        this.prepare();
        await this.request.write(chunk);
      }
    } catch (error) {
      // The load generator resets its connections.
      if (!(error instanceof SocketError)) throw error;
    }
  }

  /** What is done before an answer. */
  prepare(): void {}
}

/** Computes before each answer: always as much, for about 200 ms on a core of its own. */
export class compute extends echo {
  /** Kept, so that computing it can't be left out. */
  static computed = 0;

  override prepare(): void {
    let x = compute.computed;
    for (let i = 0; i < 1e8; i++) x = Math.imul(x, 1664525) + 1013904223 | 0;
    compute.computed = x;
  }
}

/** Sends back one chunk. */
export class once extends BaseRequestHandler {
  override async handle(): Promise<void> {
    const chunk = await this.request.read();
    if (chunk !== null) await this.request.write(chunk);
  }
}
