/* The memory limits of this machine: how fast n threads can read, copy and scale floats.
 *
 * Each loop does nothing but its traffic, so no function that moves the same bytes can be faster.
 * It knows nothing of softmax and shares no code with the package: a limit that is measured by the
 * code under test would move with it.
 *
 * The idea: an array is cut into pieces of at most 8 MiB, which the threads take in turn from a counter,
 * so that a thread that lost its processor for a while does not hold up the others. Vectors are the
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
#define PAUSE() _mm_pause()
#else
#define FENCE() ((void)0)
#define PAUSE() __asm__ volatile("" ::: "memory")
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
    /* A smaller array still has some pieces for each thread, but none that costs more to take than to move. */
    PIECES_EACH = 4,
    SMALLEST_PIECE = (64 << 10) / sizeof(float),
    MOST_THREADS = 256,
    AWAKE = 2000, /* some 50 microseconds, longer than from one call of a loop to the next */
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
    size_t piece;       /* elements that a thread takes at a time */
    atomic_size_t next; /* the first element that no thread has taken */
} job;

static double take_pieces(job *work) {
    double sum = 0;
    for (;;) {
        size_t start = atomic_fetch_add(&work->next, work->piece);
        if (start >= work->length) return sum;
        size_t left = work->length - start;
        sum += work->run(work->src + start, work->dst + start, left < work->piece ? left : work->piece,
                         work->factor);
    }
}

/* The helpers, which wait for a job, a while awake and then asleep, until the process ends: a thread
 * started for each call would take longer than to read a megabyte. One that wakes up when the work is
 * done is not waited for. Only one thread calls. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t called;
    atomic_uint call;   /* counts the jobs; a helper works on each once */
    atomic_int working; /* helpers that have begun and not finished */
    int helpers;        /* those that exist */
    int wanted;         /* those that take part in this call */
    job *work;          /* none when it is done */
    double sums[MOST_THREADS];
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .called = PTHREAD_COND_INITIALIZER};

static void *help(void *argument) {
    int number = (int)(intptr_t)argument;
    unsigned seen = 0;
    for (;;) {
        for (int i = 0; i < AWAKE && atomic_load(&pool.call) == seen; i++) PAUSE();
        pthread_mutex_lock(&pool.lock);
        while (atomic_load(&pool.call) == seen) pthread_cond_wait(&pool.called, &pool.lock);
        seen = atomic_load(&pool.call);
        job *work = number < pool.wanted ? pool.work : NULL;
        if (work) atomic_fetch_add(&pool.working, 1);
        pthread_mutex_unlock(&pool.lock);
        if (!work) continue;
        pool.sums[number] = take_pieces(work);
        atomic_fetch_sub(&pool.working, 1);
    }
    return NULL;
}

/* Runs the kernel over all pieces on n threads, the calling one included, and returns 0; or -1
 * where not all n could be started, for a limit measured on fewer would be no limit. */
static int run(job work, int threads, double *sum) {
    if (threads < 1 || threads > MOST_THREADS) return -1;
    pthread_mutex_lock(&pool.lock);
    for (; pool.helpers < threads - 1; pool.helpers++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, help, (void *)(intptr_t)pool.helpers)) break;
        pthread_detach(thread);
    }
    int enough = pool.helpers >= threads - 1;
    if (enough) {
        size_t share = work.length / (size_t)threads / PIECES_EACH / STEP * STEP;
        work.piece = share < SMALLEST_PIECE ? SMALLEST_PIECE : share > PIECE ? PIECE : share;
        pool.work = &work;
        pool.wanted = threads - 1;
        for (int t = 0; t < pool.wanted; t++) pool.sums[t] = 0;
        atomic_fetch_add(&pool.call, 1);
        if (pool.wanted) pthread_cond_broadcast(&pool.called);
    }
    pthread_mutex_unlock(&pool.lock);
    if (!enough) return -1;
    *sum = take_pieces(&work);
    pthread_mutex_lock(&pool.lock);
    pool.work = NULL;
    pthread_mutex_unlock(&pool.lock);
    while (atomic_load(&pool.working)) PAUSE();
    for (int t = 0; t < pool.wanted; t++) *sum += pool.sums[t];
    return 0;
}

int limit_read(float *a, size_t length, int threads, double *sum) {
    return run((job){.run = read_piece, .src = a, .dst = a, .length = length}, threads, sum);
}

int limit_copy(const float *src, float *dst, size_t length, int threads, int streaming) {
    double unused;
    kernel copy = streaming ? stream_piece : copy_piece;
    return run((job){.run = copy, .src = src, .dst = dst, .length = length}, threads, &unused);
}

int limit_scale(float *a, size_t length, int threads, float factor) {
    double unused;
    job work = {.run = scale_piece, .src = a, .dst = a, .length = length, .factor = factor};
    return run(work, threads, &unused);
}
