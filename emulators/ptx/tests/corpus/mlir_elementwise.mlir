// y[i] = silu(x[i]) + tanh(b[i]), with the device library's exp and tanh.
module attributes {gpu.container_module} {
  gpu.module @m {
    gpu.func @mlir_elementwise(%x: memref<?xf32>, %b: memref<?xf32>, %y: memref<?xf32>, %n: index) kernel {
      %bd = gpu.block_dim x
      %bi = gpu.block_id x
      %ti = gpu.thread_id x
      %o = arith.muli %bd, %bi : index
      %i = arith.addi %o, %ti : index
      %in = arith.cmpi ult, %i, %n : index
      scf.if %in {
        %v = memref.load %x[%i] : memref<?xf32>
        %w = memref.load %b[%i] : memref<?xf32>
        %one = arith.constant 1.0 : f32
        %s = arith.negf %v : f32
        %e = math.exp %s : f32
        %d = arith.addf %e, %one : f32
        %r = arith.divf %v, %d : f32
        %h = math.tanh %w : f32
        %z = arith.addf %r, %h : f32
        memref.store %z, %y[%i] : memref<?xf32>
      }
      gpu.return
    }
  }
}
