// Fused bilinear upsampling and argmax: logits (C, h, w) to class labels (H, W).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace scalenas {

struct Logits {
    const float *data;
    std::int64_t classes, height, width;
    std::int64_t class_stride, row_stride;  // in elements; columns are adjacent
};

struct Labels {
    std::uint8_t *data;
    std::int64_t height, width;
    std::int64_t row_stride;  // in elements; columns are adjacent
};

// Where output index i reads along one axis: at source coordinate (step * i + offset) / denominator, clamped to
// the source. Integers keep the coordinates exact, so every implementation finds the same neighbours and weights.
struct Sampling {
    std::int64_t step, offset, denominator;
};

// Names of the instruction sets that this processor runs, best last; the first is "baseline".
std::vector<std::string> instruction_sets();

// Writes the label of the largest interpolated logit of each output pixel. Per pixel and class the float32 arithmetic
// is, along the row and then along the column, a * (1 - weight) + b * weight, each operation rounded on its own.
// A class wins with a value greater than all classes before it, so ties go to the lowest label and NaN never wins.
void class_map(const Logits &logits, const Labels &labels, const Sampling &rows, const Sampling &columns,
               const std::string &instructions);

}  // namespace scalenas
