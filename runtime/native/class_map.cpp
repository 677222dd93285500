#include "class_map.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <stdexcept>

// Bodies are inlined into one function per instruction set, whose `target` attribute then decides the code.
#define INLINED static inline __attribute__((always_inline))

namespace scalenas {
namespace {

constexpr std::int64_t kTile = 64;  // output columns that are worked on together

struct Axis {
    std::vector<std::int32_t> first, second;
    std::vector<float> weight_first, weight_second;
};

Axis make_axis(const Sampling &sampling, std::int64_t source, std::int64_t target) {
    const std::int64_t padded = (target + kTile - 1) / kTile * kTile;
    Axis axis;
    for (std::int64_t i = 0; i < padded; ++i) {
        const std::int64_t position = std::min(i, target - 1);
        const std::int64_t numerator = std::max<std::int64_t>(sampling.step * position + sampling.offset, 0);
        const std::int64_t first = std::min(numerator / sampling.denominator, source - 1);
        const bool inside = first < source - 1;
        const std::int64_t rest = inside ? numerator - first * sampling.denominator : 0;
        const float weight = static_cast<float>(static_cast<double>(rest) / static_cast<double>(sampling.denominator));
        axis.first.push_back(static_cast<std::int32_t>(first));
        axis.second.push_back(static_cast<std::int32_t>(inside ? first + 1 : first));
        axis.weight_first.push_back(1.0f - weight);
        axis.weight_second.push_back(weight);
    }
    return axis;
}

// The columns that one tile of output columns reads.
struct Columns {
    const std::int32_t *first, *second;
    const float *weight_first, *weight_second;
    bool fourfold;  // first = base + (t + 2) / 4, second = first + 1: a tile inside a picture upsampled by four
};

std::vector<Columns> make_columns(const Axis &axis) {
    std::vector<Columns> tiles;
    for (std::size_t start = 0; start < axis.first.size(); start += kTile) {
        bool fourfold = true;
        for (std::int64_t t = 0; t < kTile; ++t) {
            const std::int32_t first = axis.first[start + t];
            fourfold = fourfold && first == axis.first[start] + (t + 2) / 4 && axis.second[start + t] == first + 1;
        }
        tiles.push_back({&axis.first[start], &axis.second[start], &axis.weight_first[start],
                         &axis.weight_second[start], fourfold});
    }
    return tiles;
}

// Interpolates one source row along x for one tile: `expanded` becomes (classes, kTile).
INLINED void expand_body(const float *row, const Logits &logits, const Columns &columns, float *__restrict expanded) {
    const float *u = columns.weight_first, *w = columns.weight_second;
    for (std::int64_t c = 0; c < logits.classes; ++c, row += logits.class_stride, expanded += kTile) {
        if (columns.fourfold) {
            const float *cell = row + columns.first[0];
            for (std::int64_t t = 0; t < kTile; t += 4, ++cell) {
                expanded[t] = cell[0] * u[t] + cell[1] * w[t];
                expanded[t + 1] = cell[0] * u[t + 1] + cell[1] * w[t + 1];
                expanded[t + 2] = cell[1] * u[t + 2] + cell[2] * w[t + 2];
                expanded[t + 3] = cell[1] * u[t + 3] + cell[2] * w[t + 3];
            }
        } else {
            for (std::int64_t t = 0; t < kTile; ++t) {
                expanded[t] = row[columns.first[t]] * u[t] + row[columns.second[t]] * w[t];
            }
        }
    }
}

// Interpolates two expanded rows along y and keeps the label of the running maximum, both in registers of `Bytes`.
template <int Bytes>
INLINED void classify_body(const float *above, const float *below, float weight_above, float weight_below,
                           std::int64_t classes, std::uint8_t *labels) {
    typedef float Floats __attribute__((vector_size(Bytes)));
    typedef std::int32_t Integers __attribute__((vector_size(Bytes)));
    constexpr int lanes = Bytes / 4, group = 4;
    const Floats u = Floats{} + weight_above, w = Floats{} + weight_below;
    std::int32_t wide[kTile];
    for (std::int64_t t = 0; t < kTile; t += lanes * group) {
        Floats best[group];
        Integers label[group], current = Integers{};
        for (int g = 0; g < group; ++g) {
            best[g] = Floats{} - std::numeric_limits<float>::infinity();
            label[g] = Integers{};
        }
        for (std::int64_t c = 0; c < classes; ++c, current += 1) {
#pragma GCC unroll 4
            for (int g = 0; g < group; ++g) {
                Floats a, b;
                std::memcpy(&a, above + c * kTile + t + g * lanes, Bytes);
                std::memcpy(&b, below + c * kTile + t + g * lanes, Bytes);
                const Floats value = a * u + b * w;
                const Integers better = value > best[g];
                best[g] = better ? value : best[g];
                label[g] = better ? current : label[g];
            }
        }
        for (int g = 0; g < group; ++g) std::memcpy(wide + t + g * lanes, &label[g], Bytes);
    }
    for (std::int64_t t = 0; t < kTile; ++t) labels[t] = static_cast<std::uint8_t>(wide[t]);
}

struct Variant {
    const char *name;
    void (*expand)(const float *, const Logits &, const Columns &, float *);
    void (*classify)(const float *, const float *, float, float, std::int64_t, std::uint8_t *);
};

#define VARIANT(NAME, TARGET, BYTES)                                                                                \
    TARGET void expand_##NAME(const float *row, const Logits &logits, const Columns &columns, float *expanded) {     \
        expand_body(row, logits, columns, expanded);                                                                 \
    }                                                                                                                \
    TARGET void classify_##NAME(const float *above, const float *below, float weight_above, float weight_below,      \
                                std::int64_t classes, std::uint8_t *labels) {                                        \
        classify_body<BYTES>(above, below, weight_above, weight_below, classes, labels);                             \
    }                                                                                                                \
    constexpr Variant NAME{#NAME, expand_##NAME, classify_##NAME};

VARIANT(baseline, , 16)
#ifdef __x86_64__
VARIANT(avx2, __attribute__((target("avx2"))), 32)
VARIANT(avx512, __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))), 64)
#endif

std::vector<Variant> variants() {
    std::vector<Variant> found{baseline};
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2")) found.push_back(avx2);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        found.push_back(avx512);
#endif
    return found;
}

// The expanded form of the two source rows in use; row r lies in slot r % 2, so a step down replaces one of them.
class Rows {
  public:
    Rows(const Logits &logits, const std::vector<Columns> &tiles, const Variant &variant)
        : logits_(logits), tiles_(tiles), variant_(variant), held_(2 * tiles.size(), -1),
          values_(new float[2 * tiles.size() * logits.classes * kTile]) {}

    const float *get(std::int64_t row, std::size_t tile) {
        const std::size_t place = (row % 2) * tiles_.size() + tile;
        float *values = values_.get() + place * logits_.classes * kTile;
        if (held_[place] != row) {
            variant_.expand(logits_.data + row * logits_.row_stride, logits_, tiles_[tile], values);
            held_[place] = row;
        }
        return values;
    }

  private:
    const Logits &logits_;
    const std::vector<Columns> &tiles_;
    const Variant &variant_;
    std::vector<std::int64_t> held_;
    std::unique_ptr<float[]> values_;
};

}  // namespace

std::vector<std::string> instruction_sets() {
    std::vector<std::string> names;
    for (const Variant &variant : variants()) names.emplace_back(variant.name);
    return names;
}

void class_map(const Logits &logits, const Labels &labels, const Sampling &rows, const Sampling &columns,
               const std::string &instructions) {
    const std::vector<Variant> known = variants();
    const auto variant = std::find_if(known.begin(), known.end(),
                                      [&](const Variant &candidate) { return candidate.name == instructions; });
    if (variant == known.end()) throw std::invalid_argument("this processor does not run '" + instructions + "'");

    const Axis y_axis = make_axis(rows, logits.height, labels.height);
    const Axis x_axis = make_axis(columns, logits.width, labels.width);
    const std::vector<Columns> tiles = make_columns(x_axis);
    Rows expanded(logits, tiles, *variant);
    alignas(64) std::uint8_t tile_labels[kTile];

    for (std::int64_t y = 0, end; y < labels.height; y = end) {
        // All output rows between the same two source rows are done tile by tile, while the tile is in the cache.
        end = y + 1;
        while (end < labels.height && y_axis.first[end] == y_axis.first[y]) ++end;
        for (std::size_t tile = 0; tile < tiles.size(); ++tile) {
            const float *above = expanded.get(y_axis.first[y], tile);
            const float *below = expanded.get(y_axis.second[y], tile);
            const std::int64_t x = static_cast<std::int64_t>(tile) * kTile;
            for (std::int64_t row = y; row < end; ++row) {
                variant->classify(above, below, y_axis.weight_first[row], y_axis.weight_second[row], logits.classes,
                                  tile_labels);
                std::memcpy(labels.data + row * labels.row_stride + x, tile_labels,
                            static_cast<std::size_t>(std::min(kTile, labels.width - x)));
            }
        }
    }
}

}  // namespace scalenas
