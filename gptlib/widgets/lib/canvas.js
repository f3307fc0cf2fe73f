// What the widgets' pictures on a canvas share.

/** @param {string} color as it is computed @returns {number[]} red, green and blue */
export const rgbOf = (color) => (color.match(/[\d.]+/g) ?? []).slice(0, 3).map(Number);

/** @param {HTMLCanvasElement} canvas @param {ImageData} image which it becomes */
export function put(canvas, image) {
  [canvas.width, canvas.height] = [image.width, image.height];
  canvas.getContext("2d")?.putImageData(image, 0, 0);
}
