// From a picture to what the net takes, pixel by pixel as Featherweight prepares it in Python, within one gray level.

const FILTERS = {
  box: [0.5, (x) => (x > -0.5 && x <= 0.5 ? 1 : 0)],
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  hamming: [1, (x) => (Math.abs(x) >= 1 ? 0 : sinc(x) * (0.54 + 0.46 * Math.cos(Math.PI * x)))],
  bicubic: [2, (x) => cubic(Math.abs(x))],
  lanczos: [3, (x) => (Math.abs(x) >= 3 ? 0 : sinc(x) * sinc(x / 3))],
};
const GRAY = [0.299, 0.587, 0.114];

const sinc = (x) => (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));

function cubic(x) {
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
}

// Each gives for one place of `to` places: [the first of `from` places that it is made of, weights from there on].
const TAPS = {
  area(place, from, to) {
    const low = (place * from) / to, high = ((place + 1) * from) / to, first = Math.floor(low), weights = [];
    for (let at = first; at < Math.min(high - 1e-9, from); at++) weights.push(Math.min(at + 1, high) - Math.max(at, low));
    return [first, weights];
  },
  linear(place, from, to) {
    const center = Math.min(Math.max(((place + 0.5) * from) / to - 0.5, 0), from - 1), first = Math.floor(center);
    return first + 1 < from ? [first, [1 - center + first, center - first]] : [first, [1]];
  },
  nearest(place, from, to) {
    return [Math.min(Math.floor(((place + 0.5) * from) / to), from - 1), [1]];
  },
};

function filtered(name) {
  const [radius, weight] = FILTERS[name];
  return (place, from, to) => {
    const scale = Math.max(from / to, 1), center = ((place + 0.5) * from) / to, reach = radius * scale, weights = [];
    const first = Math.max(Math.trunc(center - reach + 0.5), 0), end = Math.min(Math.trunc(center + reach + 0.5), from);
    for (let at = first; at < end; at++) weights.push(weight((at - center + 0.5) / scale));
    return [first, weights];
  };
}

// image: {width, height, data}, RGB row by row. Rows and columns after one another; the clamped array rounds.
function resampled(image, width, height, taps, between) {
  const wide = new between(image.height * width * 3), out = new Uint8ClampedArray(height * width * 3);
  along(image.data, wide, [image.width, width, 3, 3], [image.height, image.width * 3, width * 3], taps);
  along(wide, out, [image.height, height, width * 3, width * 3], [width * 3, 1, 1], taps, 1);
  return { width, height, data: out };
}

// Sums of weighted places of one axis. lines: [how many, stride in `given`, stride in `made`]; channels stand together.
function along(given, made, [from, to, step, stepMade], [lines, stride, strideMade], taps, channels = 3) {
  for (let place = 0; place < to; place++) {
    const [first, weights] = taps(place, from, to), total = weights.reduce((sum, weight) => sum + weight, 0);
    const shares = weights.map((weight) => weight / total);
    for (let line = 0; line < lines; line++) {
      for (let channel = 0; channel < channels; channel++) {
        let at = line * stride + first * step + channel, sum = 0;
        for (const share of shares) {
          sum += share * given[at];
          at += step;
        }
        made[line * strideMade + place * stepMade + channel] = sum;
      }
    }
  }
}

function stretched(image, width, height, interpolation) {
  if (image.width === width && image.height === height) return image;
  if (interpolation === "nearest") return resampled(image, width, height, TAPS.nearest, Uint8ClampedArray);
  if (interpolation !== "area") return resampled(image, width, height, filtered(interpolation), Uint8ClampedArray);
  const narrow = Math.min(image.width, width), low = Math.min(image.height, height);
  if (image.width !== narrow || image.height !== low) image = resampled(image, narrow, low, TAPS.area, Float32Array);
  return narrow === width && low === height ? image : resampled(image, width, height, TAPS.linear, Float32Array);
}

function halfToEven(value) {
  const low = Math.floor(value);
  return value - low === 0.5 ? low + (low % 2) : Math.round(value);
}

// The square that the net sees. spec: {size, crop, interpolation}.
export function squared(image, { size, crop, interpolation }) {
  if (!crop) return stretched(image, size, size, interpolation);
  const short = Math.trunc(size / crop + 1e-4), { width, height } = image;
  const columns = width <= height ? short : Math.trunc((short * width) / height);
  const rows = height <= width ? short : Math.trunc((short * height) / width);
  const whole = stretched(image, columns, rows, interpolation), data = new Uint8ClampedArray(size * size * 3);
  const left = halfToEven((columns - size) / 2), top = halfToEven((rows - size) / 2);
  for (let row = 0; row < size; row++) {
    const start = ((top + row) * columns + left) * 3;
    data.set(whole.data.subarray(start, start + size * 3), row * size * 3);
  }
  return { width: size, height: size, data };
}

// Float32Array (C, size, size) of a square: (value / 255 - mean) / std; one channel is gray as television weighs colors.
export function normalized(square, { mean, std }) {
  const { data } = square, count = data.length / 3, values = new Float32Array(mean.length * count);
  for (let channel = 0; channel < mean.length; channel++) {
    for (let at = 0; at < count; at++) {
      const value = mean.length === 1
        ? GRAY[0] * data[3 * at] + GRAY[1] * data[3 * at + 1] + GRAY[2] * data[3 * at + 2]
        : data[3 * at + channel];
      values[channel * count + at] = (value / 255 - mean[channel]) / std[channel];
    }
  }
  return values;
}

// What a bitmap or a video's frame shows, transparency laid over white.
export function pixelsOf(source, width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  pen.fillStyle = "white";
  pen.fillRect(0, 0, width, height);
  pen.drawImage(source, 0, 0, width, height);
  const seen = pen.getImageData(0, 0, width, height).data, data = new Uint8ClampedArray(width * height * 3);
  for (let from = 0, to = 0; to < data.length; from += 4, to += 3) {
    data[to] = seen[from];
    data[to + 1] = seen[from + 1];
    data[to + 2] = seen[from + 2];
  }
  return { width, height, data };
}

// A file's pixels, upright, its numbers as they are stored.
export async function decoded(file) {
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", imageOrientation: "from-image" });
  try {
    return pixelsOf(bitmap, bitmap.width, bitmap.height);
  } finally {
    bitmap.close();
  }
}
