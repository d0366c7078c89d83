import { SocketError } from "./errors.ts";

/** The error of a request whose worker the server itself has ended as it was stopped: that is no news to anybody, and reported to nobody. */
export class WorkerStopped extends SocketError {
  /** @param cause How the worker ended; nothing for a request that had none yet. */
  constructor(cause?: unknown) {
    super("ECONNABORTED", { cause }, "the server was stopped");
  }
}
