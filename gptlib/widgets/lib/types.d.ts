// What the front end and a widget's module say to one another: anywidget's front-end interface.

/** The widget's traits, of which a kernel or the page's host holds the values. */
export interface Model {
  // deno-lint-ignore no-explicit-any
  get(name: string): any;
  set(name: string, value: unknown): void;
  save_changes(): void;
  on(event: string, callback: Listener): void;
  off(event?: string | null, callback?: Listener | null): void;
  send(content: unknown, callbacks?: unknown, buffers?: unknown): void;
}

// deno-lint-ignore no-explicit-any
export type Listener = (...details: any[]) => void;

export interface Context {
  model: Model;
  el: HTMLElement;
}
