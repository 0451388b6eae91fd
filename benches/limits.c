/* The memory limits of this machine: how fast n threads can read, copy and scale floats.
 *
 * Each loop does nothing but its traffic, so no function that moves the same bytes can be faster.
 * It knows nothing of softmax and shares no code with the package: a limit that is measured by the
 * code under test would move with it.
 *
 * The idea: an array is cut into pieces of 8 MiB, which the threads take in turn from a counter, so
 * that a thread that lost its processor for a while does not hold up the others. Vectors are the
 * compiler's own (`vector_size`), as wide as the machine's registers. The -march=native that the
 * code is compiled with says how wide that is. */

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__AVX512F__)
#include <immintrin.h>
#define VECTOR_BYTES 64
#define STREAM(to, value) _mm512_stream_ps(to, (__m512)(value))
#elif defined(__AVX__)
#include <immintrin.h>
#define VECTOR_BYTES 32
#define STREAM(to, value) _mm256_stream_ps(to, (__m256)(value))
#elif defined(__SSE__)
#include <immintrin.h>
#define VECTOR_BYTES 16
#define STREAM(to, value) _mm_stream_ps(to, (__m128)(value))
#else /* No streaming store here: the streaming copy is an ordinary one. */
#define VECTOR_BYTES 16
#define STREAM(to, value) (*(vector *)(to) = (value))
#endif

#if defined(__SSE__)
#define FENCE() _mm_sfence()
#else
#define FENCE() ((void)0)
#endif

typedef float vector __attribute__((vector_size(VECTOR_BYTES)));
typedef float vector_anywhere __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));

enum {
    LANES = VECTOR_BYTES / sizeof(float),
    /* Vectors in flight. To read and to scale, half of the registers. To copy, 4: with streaming
     * stores 8 took a quarter longer on a Xeon with AVX-512, 2 a fifth (interleaved on 800 MB, while
     * others used the machine too: worth a second look on a quiet one). */
    GROUP = VECTOR_BYTES == 64 ? 16 : 8,
    COPY_GROUP = 4,
    STEP = GROUP * LANES,
    COPY_STEP = COPY_GROUP * LANES,
    PIECE = (8 << 20) / sizeof(float), /* with 1 MiB a copy took 3 % longer, likewise */
    MOST_THREADS = 256,
};

/* Without this the compiler recognises a copy and calls memcpy, whose choice of stores is its own. */
#define NO_MEMCPY() __asm__ volatile("" ::: "memory")

/* Works on one piece and returns the sum of what it read, where it sums at all. */
typedef double (*kernel)(const float *src, float *dst, size_t length, float factor);

static inline vector load(const float *from) { return *(const vector_anywhere *)from; }
static inline void store(float *to, vector value) { *(vector_anywhere *)to = value; }

static double read_piece(const float *src, float *dst, size_t length, float factor) {
    (void)dst, (void)factor;
    vector sums[GROUP] = {0};
    double sum = 0;
    size_t i = 0;
    for (; i + STEP <= length; i += STEP)
        for (int k = 0; k < GROUP; k++) sums[k] += load(src + i + k * LANES);
    for (; i < length; i++) sum += src[i];
    for (int k = 0; k < GROUP; k++)
        for (int lane = 0; lane < LANES; lane++) sum += sums[k][lane];
    return sum;
}

static double copy_piece(const float *src, float *dst, size_t length, float factor) {
    (void)factor;
    size_t i = 0;
    for (; i + COPY_STEP <= length; i += COPY_STEP) {
        vector group[COPY_GROUP];
        for (int k = 0; k < COPY_GROUP; k++) group[k] = load(src + i + k * LANES);
        NO_MEMCPY();
        for (int k = 0; k < COPY_GROUP; k++) store(dst + i + k * LANES, group[k]);
    }
    for (; i < length; i++) dst[i] = src[i];
    return 0;
}

static double stream_piece(const float *src, float *dst, size_t length, float factor) {
    (void)factor;
    size_t i = 0;
    for (; i < length && (uintptr_t)(dst + i) % VECTOR_BYTES; i++) dst[i] = src[i];
    for (; i + COPY_STEP <= length; i += COPY_STEP) {
        vector group[COPY_GROUP];
        for (int k = 0; k < COPY_GROUP; k++) group[k] = load(src + i + k * LANES);
        NO_MEMCPY();
        for (int k = 0; k < COPY_GROUP; k++) STREAM(dst + i + k * LANES, group[k]);
    }
    FENCE();
    for (; i < length; i++) dst[i] = src[i];
    return 0;
}

static double scale_piece(const float *src, float *dst, size_t length, float factor) {
    (void)src;
    size_t i = 0;
    for (; i + STEP <= length; i += STEP) {
        vector group[GROUP];
        for (int k = 0; k < GROUP; k++) group[k] = load(dst + i + k * LANES) * factor;
        for (int k = 0; k < GROUP; k++) store(dst + i + k * LANES, group[k]);
    }
    for (; i < length; i++) dst[i] *= factor;
    return 0;
}

typedef struct {
    kernel run;
    const float *src; /* where the kernel has only one array, it is both */
    float *dst;
    size_t length;
    float factor;
    atomic_size_t next; /* the first element that no thread has taken */
} job;

typedef struct {
    job *work;
    double sum;
} worker;

static void *take_pieces(void *argument) {
    worker *self = argument;
    job *work = self->work;
    for (;;) {
        size_t start = atomic_fetch_add(&work->next, PIECE);
        if (start >= work->length) return NULL;
        size_t left = work->length - start;
        self->sum += work->run(work->src + start, work->dst + start, left < PIECE ? left : PIECE,
                               work->factor);
    }
}

/* Runs the kernel over all pieces on n threads, the calling one included, and returns 0; or -1
 * where not all n could be started, for a limit measured on fewer would be no limit. */
static int run(job work, int threads, double *sum) {
    pthread_t started[MOST_THREADS];
    worker workers[MOST_THREADS];
    int count = 0;
    if (threads < 1 || threads > MOST_THREADS) return -1;
    for (; count < threads; count++) {
        workers[count] = (worker){.work = &work};
        if (count && pthread_create(&started[count], NULL, take_pieces, &workers[count])) break;
    }
    take_pieces(&workers[0]);
    *sum = workers[0].sum;
    for (int t = 1; t < count; t++) {
        pthread_join(started[t], NULL);
        *sum += workers[t].sum;
    }
    return count == threads ? 0 : -1;
}

int limit_read(float *a, size_t length, int threads, double *sum) {
    return run((job){read_piece, a, a, length, 0, 0}, threads, sum);
}

int limit_copy(const float *src, float *dst, size_t length, int threads, int streaming) {
    double unused;
    return run((job){streaming ? stream_piece : copy_piece, src, dst, length, 0, 0}, threads, &unused);
}

int limit_scale(float *a, size_t length, int threads, float factor) {
    double unused;
    return run((job){scale_piece, a, a, length, factor, 0}, threads, &unused);
}
