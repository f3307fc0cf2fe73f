// The part of lit-html's types that the widgets use.

/** What `html` and `svg` make: markup with values in it, not drawn yet. */
export interface TemplateResult {
  readonly strings: TemplateStringsArray;
  readonly values: unknown[];
}

export function html(strings: TemplateStringsArray, ...values: unknown[]): TemplateResult;
/** As `html`, for what stands inside an `<svg>`. */
export function svg(strings: TemplateStringsArray, ...values: unknown[]): TemplateResult;

/** Draw a value into an element; what is there already is changed only where it differs. */
export function render(value: unknown, container: HTMLElement): unknown;

/** Draws nothing; as an attribute's value, it takes the attribute away. */
export const nothing: symbol;
/** Leaves what is drawn as it is. */
export const noChange: symbol;

/** A property that the reader can change, too: it is compared with what stands there now. */
export function live(value: unknown): unknown;
/** Hands over the element that it stands in once it is drawn, and `undefined` when it goes. */
export function ref(callback: (element: Element | undefined) => void): unknown;
/** A list in which each element stays with its key. */
export function repeat<T>(
  items: Iterable<T>,
  key: (item: T, index: number) => unknown,
  template: (item: T, index: number) => unknown,
): unknown;

/** What a directive is told of the place that it stands in. */
export interface Part {
  readonly element: HTMLElement;
}

/** Something that changes the place where it stands by itself; it lives as long as the place. */
export class Directive {
  constructor(part: unknown);
}

// deno-lint-ignore no-explicit-any
export function directive(made: new (part: any) => Directive): (...values: any[]) => unknown;
