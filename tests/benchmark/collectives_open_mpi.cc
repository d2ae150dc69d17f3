// collectives_open_mpi KIND BYTES TIMES SIZE, under mpirun: prints the microseconds of one
// operation, in place, float32. For collectives_bench.cc.
#define OMPI_SKIP_MPICXX 1  // the C interface alone
#include <mpi.h>

#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <vector>

namespace {

using Operation = void (*)(std::vector<float>& data, int size);

void AllReduce(std::vector<float>& data, int) {
  MPI_Allreduce(MPI_IN_PLACE, data.data(), static_cast<int>(data.size()), MPI_FLOAT, MPI_SUM,
                MPI_COMM_WORLD);
}
void AllGather(std::vector<float>& data, int size) {
  MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, data.data(),
                static_cast<int>(data.size()) / size, MPI_FLOAT, MPI_COMM_WORLD);
}
void ReduceScatter(std::vector<float>& data, int size) {
  const std::vector<int> counts(static_cast<size_t>(size), static_cast<int>(data.size()) / size);
  MPI_Reduce_scatter(MPI_IN_PLACE, data.data(), counts.data(), MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
}
void ReduceScatterBlock(std::vector<float>& data, int size) {
  MPI_Reduce_scatter_block(MPI_IN_PLACE, data.data(), static_cast<int>(data.size()) / size,
                           MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
}

double Microseconds(Operation operation, std::vector<float>& data, int times, int size) {
  for (int i = 0; i < times / 10 + 5; ++i) operation(data, size);
  MPI_Barrier(MPI_COMM_WORLD);
  const double start = MPI_Wtime();
  for (int i = 0; i < times; ++i) operation(data, size);
  MPI_Barrier(MPI_COMM_WORLD);
  return (MPI_Wtime() - start) * 1e6 / times;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 5) return 2;
  MPI_Init(&argc, &argv);
  int rank = 0;
  int size = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  const std::string_view kind = argv[1];
  std::vector<Operation> forms = {&AllReduce};
  if (kind == "all-gather") forms = {&AllGather};
  if (kind == "reduce-scatter") forms = {&ReduceScatter, &ReduceScatterBlock};
  std::vector<float> data(static_cast<size_t>(std::atoll(argv[2])) / sizeof(float));
  double least = 0;
  for (const Operation form : forms) {
    const double us = Microseconds(form, data, std::atoi(argv[3]), size);
    if (least == 0 || us < least) least = us;
  }
  if (rank == 0) std::printf("%.3f\n", least);
  MPI_Finalize();
  return 0;
}
