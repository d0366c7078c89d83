/** Nothing: what starting the runtime costs. */
