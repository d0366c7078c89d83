/** A `Mutex`: whose turn it is, who gives up, and what threads that die leave behind, whatever they were doing. */
import { assert, assertEquals, assertInstanceOf, assertRejects, assertThrows } from "@std/assert";
import { type Lock, Mutex, SocketError } from "@sockets/server";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { beginLife, endLife, setThreadLife, type ThreadLife } from "../../src/thread_life.ts";
import { generator } from "./generator.ts";

/** Whether a promise has settled, after a turn of the event loop. */
async function isPending(promise: Promise<unknown>): Promise<boolean> {
  const pending = Symbol("pending");
  const turn = new Promise((resolve) => setTimeout(resolve, 20, pending));
  return await Promise.race([promise.catch(() => {}), turn]) === pending;
}

/** A promise's value, or an error that says what did not come. */
async function within<T>(what: string, promise: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout>;
  const late = new Promise<never>((_, reject) => timer = setTimeout(() => reject(new Error(`${what} took 10 s`)), 10_000));
  return await Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

test("mutex: it goes to those who wait in the order of their asking", async () => {
  const mutex = new Mutex();
  const order: number[] = [];
  const held = await mutex.lock();
  const waiting = [1, 2, 3, 4].map(async (number) => {
    const lock = await new Mutex(mutex.buffer).lock();
    order.push(number);
    lock.unlock();
  });
  assert(await isPending(Promise.race(waiting)));
  held.unlock();
  await within("the lock", Promise.all(waiting));
  assertEquals(order, [1, 2, 3, 4]);
});

test("mutex: unlock() of what is not held is an error, the end of a using block is none", async () => {
  const mutex = new Mutex();
  const lock = await mutex.lock();
  lock.unlock();
  assertThrows(() => lock.unlock(), Error, "not held");
  const next = await mutex.lock();
  lock[Symbol.dispose]();
  assertThrows(() => lock.unlock(), Error, "not held");
  await assertRejects(() => mutex.lock({ timeout: 0 }), SocketError);
  next[Symbol.dispose]();
  next[Symbol.dispose]();
  (await mutex.lock({ timeout: 0 })).unlock();
});

test("mutex: waiting ends at its timeout or by a signal, and the others go on as if nobody had asked", async () => {
  const mutex = new Mutex();
  const held = await mutex.lock();
  const error = await within("the timeout", assertRejects(() => mutex.lock({ timeout: 30 }), SocketError));
  assertEquals([error.code, error.syscall], ["ETIMEDOUT", "lock"]);
  const controller = new AbortController();
  const aborted = mutex.lock({ signal: controller.signal });
  const last = mutex.lock({ timeout: 60_000, signal: new AbortController().signal });
  controller.abort(new Error("no more"));
  assertEquals((await assertRejects(() => within("the abort", aborted), Error)).message, "no more");
  await assertRejects(() => mutex.lock({ signal: AbortSignal.abort(new Error("before")) }), Error, "before");
  assert(await isPending(last));
  held.unlock();
  const lock = await within("the lock", last);
  assertEquals(lock.abandoned, false);
  lock.unlock();
  await assertRejects(() => mutex.lock({ timeout: -1 }), RangeError, "timeout");
});

test("mutex: more wait than have a place in the order, and each gets it once", async () => {
  const mutex = new Mutex();
  const held = await mutex.lock();
  let inside = 0;
  let served = 0;
  const waiting = Array.from({ length: 1500 }, async () => {
    const lock = await mutex.lock();
    assertEquals(++inside, 1);
    served++;
    await Promise.resolve();
    inside--;
    lock.unlock();
  });
  await assertRejects(() => mutex.lock({ timeout: 0 }), SocketError);
  held.unlock();
  await within("the lock", Promise.all(waiting));
  assertEquals(served, 1500);
});

test("mutex: many that give up leave room for others", async () => {
  const mutex = new Mutex();
  const held = await mutex.lock();
  for (let i = 0; i < 5000; i++) await assertRejects(() => mutex.lock({ timeout: 0 }), SocketError);
  const waiting = mutex.lock();
  held.unlock();
  (await within("the lock", waiting)).unlock();
});

test("mutex: its memory is that of another and nothing else", () => {
  const { buffer } = new Mutex();
  new Mutex(buffer);
  for (
    const wrong of [new SharedArrayBuffer(8), new SharedArrayBuffer(buffer.byteLength), new ArrayBuffer(buffer.byteLength), null]
  ) {
    assertThrows(() => new Mutex(wrong as SharedArrayBuffer), TypeError, "buffer");
  }
});

test("mutex: a program that waits for it goes on running", () => {
  const module = `import { Mutex } from ${JSON.stringify(new URL("../../mod.ts", import.meta.url).href)};
    const mutex = new Mutex();
    const held = await mutex.lock();
    setTimeout(() => held.unlock(), 300)${"Deno" in globalThis ? "" : ".unref()"};
    void mutex.lock().then(() => console.log("got it"));`;
  const args = "Deno" in globalThis
    ? ["run", "-A", "--no-check", `data:text/javascript,${encodeURIComponent(module)}`]
    : "Bun" in globalThis
    ? ["--eval", module]
    : ["--no-warnings", "--input-type=module", "--eval", module];
  const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: "utf8", timeout: 30_000 });
  assertEquals(stdout, "got it\n", stderr);
});

/** A thread as the others see it: what it does is done here, and at any atomic step it may die. */
class Simulated {
  readonly life: ThreadLife = beginLife();
  #mutex: Mutex;

  constructor(buffer: SharedArrayBuffer) {
    this.#mutex = this.#as(() => new Mutex(buffer));
  }

  lock(): Promise<Lock> {
    return this.#mutex.lock();
  }

  die(): void {
    endLife(this.life);
  }

  #as<T>(act: () => T): T {
    setThreadLife(this.life);
    try {
      return act();
    } finally {
      setThreadLife({ memory: this.life.memory, token: HERE });
    }
  }
}

/** The token of a thread whose end nobody could know: this one. */
const HERE = 1 << 30;

class Died extends Error {}

/** Has `act` die at its n-th atomic step; whether it came to that. */
function dyingAt(step: number, act: () => void): boolean {
  const original = { ...Object.fromEntries(STEPS.map((name) => [name, Atomics[name]])) };
  let left = step;
  for (const name of STEPS) {
    (Atomics as unknown as Record<string, unknown>)[name] = (...args: never[]) => {
      if (left-- === 0) throw new Died();
      return (original[name] as (...args: never[]) => unknown)(...args);
    };
  }
  try {
    act();
    return false;
  } catch (error) {
    assertInstanceOf(error, Died);
    return true;
  } finally {
    Object.assign(Atomics, original);
  }
}
const STEPS = ["load", "store", "exchange", "compareExchange", "notify", "waitAsync"] as const;

test("mutex: wherever in lock() a thread dies, the next one gets it", async () => {
  for (const crowded of [false, true]) {
    // More steps than it takes: beyond, it has the lock or waits for it when it dies.
    for (let step = 0; step < 40; step++) {
      const { buffer } = new Mutex();
      const thread = new Simulated(buffer);
      const held = crowded ? await new Mutex(buffer).lock() : null;
      // The first part of an async function runs at once; its rejection is the death.
      dyingAt(step, () => void thread.lock().catch(() => {}));
      thread.die();
      held?.unlock();
      const lock = await within(`the lock after a death at step ${step}`, new Mutex(buffer).lock());
      lock.unlock();
      (await new Mutex(buffer).lock({ timeout: 0 })).unlock();
    }
  }
});

test("mutex: wherever in unlock() a thread dies, the next one gets it", async () => {
  for (const waits of [false, true]) {
    for (let step = 0, died = true; died; step++) {
      const { buffer } = new Mutex();
      const thread = new Simulated(buffer);
      const lock = await thread.lock();
      const waiting = waits ? new Mutex(buffer).lock() : null;
      died = dyingAt(step, () => lock.unlock());
      thread.die();
      (await within(`the lock after a death at step ${step}`, waiting ?? new Mutex(buffer).lock())).unlock();
      (await new Mutex(buffer).lock({ timeout: 0 })).unlock();
    }
  }
});

test("mutex: the next owner is told that one has died, once", async () => {
  const { buffer } = new Mutex();
  const thread = new Simulated(buffer);
  await thread.lock();
  const [first, second] = [new Mutex(buffer).lock(), new Mutex(buffer).lock()];
  assert(await isPending(first));
  thread.die();
  const lock = await within("the lock", first);
  assertEquals(lock.abandoned, true);
  lock.unlock();
  assertEquals((await within("the lock", second)).abandoned, false);
});

test("mutex: threads that ask, give up and die at random leave it to one at a time, and usable", async () => {
  for (let seed = 1; seed <= 20; seed++) {
    const random = generator(seed);
    const below = (n: number) => Math.floor(random() * n);
    const { buffer } = new Mutex();
    let owner: Simulated | null = null;
    const dead = new Set<Simulated>();
    const threads = Array.from({ length: 5 }, () => new Simulated(buffer));
    const visits = Array.from({ length: 60 }, async () => {
      for (let turns = below(8); turns > 0; turns--) await new Promise((resolve) => setTimeout(resolve, 0));
      const at = below(threads.length);
      const thread = threads[at]!;
      const asked = thread.lock();
      if (below(10) === 0) {
        // While it waits, perhaps.
        thread.die();
        dead.add(thread);
        threads[at] = new Simulated(buffer);
      }
      void asked.then(async (lock) => {
        if (dead.has(thread)) return;
        assert(owner === null || dead.has(owner), `seed ${seed}: two have it at once`);
        owner = thread;
        if (below(3) === 0) await new Promise((resolve) => setTimeout(resolve, 0));
        if (dead.has(thread)) return;
        if (below(12) === 0) {
          thread.die();
          dead.add(thread);
          threads[threads.indexOf(thread)] = new Simulated(buffer);
          return;
        }
        owner = null;
        lock.unlock();
      }).catch((error) => {
        if (!dead.has(thread)) failures.push(error);
      });
    });
    const failures: unknown[] = [];
    await Promise.all(visits);
    (await within(`seed ${seed}: the lock`, new Mutex(buffer).lock())).unlock();
    assertEquals(failures, [], `seed ${seed}`);
    for (const thread of threads) thread.die();
  }
});
