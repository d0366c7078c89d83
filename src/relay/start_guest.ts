import type { WorkerStart } from "../runtime.ts";
import { Guest as RequestGuest } from "./guest.ts";
import type { Send } from "./host.ts";
import type { OnFrame } from "./ring.ts";
import { ServerGuest } from "./server_guest.ts";

/** A worker's end of the relay, whatever the worker is for. */
export interface Guest {
  /** A frame has come. */
  receive: OnFrame;
}

/** Loads what a worker is to run. */
export function startGuest(start: WorkerStart, send: Send): Promise<Guest> {
  return (start.entry === "server" ? ServerGuest : RequestGuest).start(start, send);
}
