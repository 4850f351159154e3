/* Nothing: the port has no interrupts that run Python and no characters to read. */
#define mp_hal_set_interrupt_char(c)
static inline void mp_hal_delay_ms(unsigned long ms) { (void)ms; }
unsigned long mp_hal_ticks_ms(void);
void mp_hal_stdout_tx_strn_cooked(const char *text, unsigned long length);
unsigned long mp_hal_stdout_tx_strn(const char *text, unsigned long length);
