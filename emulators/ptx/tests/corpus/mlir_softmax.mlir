// One warp takes one row: maximum and sum by butterfly shuffles.
module attributes {gpu.container_module} {
  gpu.module @m {
    gpu.func @mlir_softmax(%x: memref<?x?xf32>, %y: memref<?x?xf32>, %n: index) kernel {
      %row = gpu.block_id x
      %lane = gpu.thread_id x
      %c32 = arith.constant 32 : index
      %w = arith.constant 32 : i32
      %low = arith.constant 0xFF800000 : f32
      %zero = arith.constant 0.0 : f32
      %c1 = arith.constant 1 : i32
      %c2 = arith.constant 2 : i32
      %c4 = arith.constant 4 : i32
      %c8 = arith.constant 8 : i32
      %c16 = arith.constant 16 : i32
      %m = scf.for %j = %lane to %n step %c32 iter_args(%a = %low) -> (f32) {
        %v = memref.load %x[%row, %j] : memref<?x?xf32>
        %b = arith.maximumf %a, %v : f32
        scf.yield %b : f32
      }
      %s1, %p1 = gpu.shuffle xor %m, %c1, %w : f32
      %m1 = arith.maximumf %m, %s1 : f32
      %s2, %p2 = gpu.shuffle xor %m1, %c2, %w : f32
      %m2 = arith.maximumf %m1, %s2 : f32
      %s3, %p3 = gpu.shuffle xor %m2, %c4, %w : f32
      %m3 = arith.maximumf %m2, %s3 : f32
      %s4, %p4 = gpu.shuffle xor %m3, %c8, %w : f32
      %m4 = arith.maximumf %m3, %s4 : f32
      %s5, %p5 = gpu.shuffle xor %m4, %c16, %w : f32
      %m5 = arith.maximumf %m4, %s5 : f32
      %t = scf.for %j = %lane to %n step %c32 iter_args(%a = %zero) -> (f32) {
        %v = memref.load %x[%row, %j] : memref<?x?xf32>
        %d = arith.subf %v, %m5 : f32
        %e = math.exp %d : f32
        memref.store %e, %y[%row, %j] : memref<?x?xf32>
        %b = arith.addf %a, %e : f32
        scf.yield %b : f32
      }
      %q1, %r1 = gpu.shuffle xor %t, %c1, %w : f32
      %t1 = arith.addf %t, %q1 : f32
      %q2, %r2 = gpu.shuffle xor %t1, %c2, %w : f32
      %t2 = arith.addf %t1, %q2 : f32
      %q3, %r3 = gpu.shuffle xor %t2, %c4, %w : f32
      %t3 = arith.addf %t2, %q3 : f32
      %q4, %r4 = gpu.shuffle xor %t3, %c8, %w : f32
      %t4 = arith.addf %t3, %q4 : f32
      %q5, %r5 = gpu.shuffle xor %t4, %c16, %w : f32
      %t5 = arith.addf %t4, %q5 : f32
      scf.for %j = %lane to %n step %c32 {
        %v = memref.load %y[%row, %j] : memref<?x?xf32>
        %z = arith.divf %v, %t5 : f32
        memref.store %z, %y[%row, %j] : memref<?x?xf32>
      }
      gpu.return
    }
  }
}
